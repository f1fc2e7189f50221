"""Merging streams: items, order, prefetching, errors and live sources."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from headrace import (
    ClosedError,
    PullConcatObj,
    PullLabeledRaceObj,
    PullObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    PushPullBufferObj,
    SourceIterObj,
    SourceObj,
)
from tests.merge_sources import MERGES, ready, rounds, slow, source, timed
from tests.support import assert_bound_to_loop, collect, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


# Against lists.

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5)
against_lists = settings(max_examples=60)
SPEEDS = st.lists(st.integers(0, 4), min_size=5, max_size=5)


def run(
    make: Callable[[list[Any]], PullObj[Any]], lists: list[list[Any]], speeds: list[int]
) -> Any:
    async def main() -> list[Any]:
        sources = [source(items, speed) for items, speed in zip(lists, speeds, strict=False)]
        outcome = await collect(make(sources))
        assert len(asyncio.all_tasks()) == 1
        return outcome

    return asyncio.run(main())


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_concat_matches_chain(lists: list[list[int]], speeds: list[int], prefetch: int) -> None:
    outcome = run(lambda s: PullConcatObj(*s, prefetch=prefetch), lists, speeds)
    assert outcome == list(itertools.chain(*lists))


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_zip_matches_builtin_zip(lists: list[list[int]], speeds: list[int], prefetch: int) -> None:
    assert run(lambda s: PullZipObj(*s, prefetch=prefetch), lists, speeds) == list(
        zip(*lists, strict=False)
    )


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_longest_zip_matches_zip_longest(
    lists: list[list[int]], speeds: list[int], prefetch: int
) -> None:
    outcome = run(
        lambda s: PullZipObj(*s, longest=True, fill="-", prefetch=prefetch), lists, speeds
    )
    assert outcome == list(itertools.zip_longest(*lists, fillvalue="-"))


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_round_robin_interleaves(lists: list[list[int]], speeds: list[int], prefetch: int) -> None:
    outcome = run(lambda s: PullRoundRobinObj(*s, prefetch=prefetch), lists, speeds)
    assert outcome == list(itertools.chain(*rounds(lists)))


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_fair_merge_yields_each_source_once_a_round(
    lists: list[list[int]], speeds: list[int], prefetch: int
) -> None:
    named = [[(number, item) for item in items] for number, items in enumerate(lists)]
    outcome = run(lambda s: PullRaceRobinObj(*s, prefetch=prefetch), named, speeds)
    for expected in rounds(named):
        row, outcome = outcome[: len(expected)], outcome[len(expected) :]
        assert sorted(row) == sorted(expected)
    assert outcome == []


@against_lists
@given(LISTS, SPEEDS, st.integers(1, 3))
def test_race_keeps_each_item_and_order_of_sources(
    lists: list[list[int]], speeds: list[int], prefetch: int
) -> None:
    named = [[(number, item) for item in items] for number, items in enumerate(lists)]
    outcome = run(lambda s: PullRaceObj(*s, prefetch=prefetch), named, speeds)
    for number, items in enumerate(named):
        assert [item for item in outcome if item[0] == number] == items
    assert len(outcome) == sum(map(len, lists))


@pytest.mark.virtual
@pytest.mark.parametrize("seed", range(30))
async def test_law_2_random_waits_and_timeouts_lose_nothing(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def uneven(name: int, count: int) -> AsyncIterator[tuple[int, int]]:
        for index in range(count):
            if rng.random() < 0.6:
                await asyncio.sleep(rng.choice([0, 0.01, 0.1, 0.5]))
            yield name, index

    counts = [rng.randrange(10) for _ in range(rng.randint(1, 5))]
    make = rng.choice([PullConcatObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
    sources = [uneven(name, count) for name, count in enumerate(counts)]
    items: list[tuple[int, int]] = []
    async with make(*sources, prefetch=rng.randint(1, 3)) as stream:
        while True:
            try:
                async with asyncio.timeout(rng.choice([0, 0.005, 0.05, None])):
                    items.append(await anext(stream))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
    assert sorted(items) == [
        (name, index) for name, count in enumerate(counts) for index in range(count)
    ]
    for name, count in enumerate(counts):
        assert [item for item in items if item[0] == name] == [(name, i) for i in range(count)]


@pytest.mark.virtual
@pytest.mark.parametrize("make", [PullRaceObj, PullRoundRobinObj, PullRaceRobinObj])
async def test_law_2_timed_out_pulls_of_slow_sources(
    make: Callable[..., PullObj[Any]],
) -> None:
    sources = [
        timed([(name, i) for i in range(60)], seconds)
        for name, seconds in (("a", 1), ("b", 2), ("c", 5))
    ]
    items: list[Any] = []
    async with make(*sources) as stream:
        for pulls in itertools.count():
            try:
                async with asyncio.timeout(0.3 if pulls % 2 else None):
                    items.append(await anext(stream))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
    assert len(items) == len(set(items)) == 180
    for name in "abc":
        assert [index for other, index in items if other == name] == list(range(60))


# Order and fairness.


@pytest.mark.virtual
async def test_fastest_of_a_round_comes_first() -> None:
    stream = PullRaceRobinObj(timed("abc", 3), timed("ABC", 1), timed("123", 2))
    assert "".join(await collect(stream)) == "A1aB2bC3c"


@pytest.mark.parametrize("m", [2, 7, 50])
async def test_race_rotates_among_ready_sources(m: int) -> None:
    kinds: list[Callable[[list[int]], Any]] = [ready, SourceIterObj, list]
    sources = [kinds[number % 3]([number] * 30) for number in range(m)]
    async with PullRaceObj(*sources) as race:
        items = [await anext(race) for _ in range(m * 20)]
    for start in range(len(items) - m):
        assert set(items[start : start + m]) == set(range(m))


# Prefetching.


@pytest.mark.parametrize("prefetch", [1, 2, 5])
@pytest.mark.parametrize("make", [PullZipObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_law_6_prefetch_is_as_requested(
    make: Callable[..., PullObj[Any]], prefetch: int
) -> None:
    pulled: Counter[int] = Counter()
    taken = 0

    async def count(name: int, iterations: int) -> AsyncIterator[int]:
        while True:
            for _ in range(iterations):
                await asyncio.sleep(0)
            pulled[name] += 1
            yield name

    assert not pulled
    async with make(count(0, 0), count(1, 1), count(2, 3), prefetch=prefetch) as stream:
        for _ in range(30):
            item = await anext(stream)
            taken += len(item) if isinstance(item, tuple) else 1
            await quiet()
            assert pulled.total() <= taken + 3 * prefetch
        assert set(pulled) == {0, 1, 2}
        await quiet()
        ahead = pulled.total() - taken
        assert ahead <= 3 * prefetch
        assert ahead >= 3 * (prefetch - 1)


async def test_law_1_concat_starts_one_source_at_a_time() -> None:
    begun: list[int] = []

    async def recorded(name: int) -> AsyncIterator[int]:
        begun.append(name)
        yield name

    async with PullConcatObj(recorded(0), recorded(1)) as stream:
        assert begun == []
        await anext(stream)
        await quiet()
        assert begun == [0]
        await anext(stream)
        assert begun == [0, 1]


@pytest.mark.parametrize("make", MERGES)
async def test_law_1_nothing_runs_before_the_first_pull(make: Callable[..., PullObj[Any]]) -> None:
    class Never(SourceObj[int]):
        async def __anext__(self) -> int:
            raise AssertionError

    make(Never(), iter(Never, 1), ready([1]))
    await quiet()
    assert len(asyncio.all_tasks()) == 1


# Native sources need no task.


async def test_native_sources_need_no_task() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    inner = PullRaceObj(buffer.source.batch(2), [8])
    async with PullRaceObj(inner, SourceIterObj(range(2)), iter([9])) as race:
        items = [await anext(race) for _ in range(4)]
        pulling = asyncio.ensure_future(anext(race))
        await quiet()
        assert len(asyncio.all_tasks()) == 2
        for item in (5, 6):
            buffer.sink.next_nowait(item)
        items.append(await pulling)
    assert Counter(map(str, items)) == Counter(["8", "0", "1", "9", "[5, 6]"])


async def test_law_9_sources_in_threads() -> None:
    buffers: list[PushPullBufferObj[int]] = [PushPullBufferObj(3) for _ in range(3)]

    async def feed(buffer: PushPullBufferObj[int], start: int) -> None:
        for item in range(start, start + 100):
            await buffer.sink.next(item)
        await buffer.sink.return_()

    def produce(buffer: PushPullBufferObj[int], start: int) -> None:
        asyncio.run(feed(buffer, start))

    race = PullRaceObj(*(buffer.source for buffer in buffers))
    producing = asyncio.gather(
        *(asyncio.to_thread(produce, buffer, n * 100) for n, buffer in enumerate(buffers))
    )
    assert sorted(await collect(race)) == list(range(300))
    await producing


# Zip.


@pytest.mark.parametrize("kind", [list, ready, slow])
async def test_strict_zip_names_the_source_that_ended(kind: Callable[..., Any]) -> None:
    stream = PullZipObj(kind([1, 2]), kind("abc"), kind([1, 2, 3]), strict=True)
    assert [await anext(stream), await anext(stream)] == [(1, "a", 1), (2, "b", 2)]
    with pytest.raises(ValueError, match=r"source 0 ended after 2 items, sources 1, 2 did not"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert len(asyncio.all_tasks()) == 1


async def test_zip_ends_while_a_source_waits() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    assert await collect(buffer.source.zip(slow([]))) == []


# Cutoff.


@pytest.mark.virtual
async def test_cutoff_ends_the_stream() -> None:
    stream = SourceIterObj(timed(range(100), 1)).take_until(timed("x", 4.5), timed("y", 50))
    assert await collect(stream) == [0, 1, 2, 3]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.virtual
async def test_cutoff_raises_once() -> None:
    error = TimeoutError("too late")
    stream = PullRaceCutoffObj(timed(range(100), 1), timed("x", 2.5), error=error)
    assert [await anext(stream), await anext(stream)] == [0, 1]
    with pytest.raises(TimeoutError) as raised:
        await anext(stream)
    assert raised.value is error
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_cutoff_without_items_cuts_nothing() -> None:
    assert await collect(SourceIterObj(slow(range(5))).take_until([], ready([]))) == list(range(5))


async def test_end_does_not_wait_for_a_cutoff() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    assert await collect(SourceIterObj(slow(range(5))).take_until(buffer.source)) == list(range(5))


# Bad input.


@pytest.mark.parametrize("make", MERGES)
async def test_law_14_bad_input_is_refused(make: Any) -> None:
    name = make.__name__
    with pytest.raises(ValueError, match=f"{name}: sources must be one stream at least, got none"):
        make()
    with pytest.raises(
        TypeError, match=rf"{name}: sources\[1\] must be an iterable or an async iterable, not 3"
    ):
        make([1], 3)
    for streams in ([ready([1])], (ready([1]), SourceIterObj([2]))):
        with pytest.raises(TypeError, match=rf"{name}: sources .* unpack it: {name}\(\*streams\)"):
            make(streams)
    same = ready([1])
    with pytest.raises(
        ValueError, match=r"sources\[1\] must not be sources\[0\] again, .* would be split"
    ):
        make(same, same)
    with pytest.raises(ValueError, match=r"prefetch must be at least 1 .*, got 0 \(int\)"):
        make([1], prefetch=0)
    with pytest.raises(TypeError, match=r"prefetch must be an integer, got 1.5 \(float\)"):
        make([1], prefetch=1.5)
    with pytest.raises(ValueError, match=r'errors must be "raise".*, got \'no\' \(str\)'):
        make([1], errors="no")
    stream = make([1])
    with pytest.raises(TypeError, match="source must be an iterable"):
        stream.add(4)
    with pytest.raises(ValueError, match="source is one of the sources already"):
        stream.add(stream.sources[0])
    await collect(stream)
    with pytest.raises(ClosedError, match="no source can be added any more") as refused:
        stream.add(same)
    assert refused.value.item is same


def test_law_14_contradicting_options_are_refused() -> None:
    bad: Any = 3
    with pytest.raises(ValueError, match="strict must not be true together with longest"):
        PullZipObj([1], strict=True, longest=True)
    with pytest.raises(ValueError, match="fill has no meaning without longest=True, got 3"):
        PullZipObj([1], fill=3)
    with pytest.raises(ValueError, match="cutoffs must be one stream at least, got none"):
        PullRaceCutoffObj([1])
    with pytest.raises(TypeError, match=r"error must be an exception or None, got 3 \(int\)"):
        PullRaceCutoffObj([1], [2], error=bad)
    with pytest.raises(TypeError, match="sources must be a mapping of labels to streams, not 3"):
        PullLabeledRaceObj(bad)
    same = [1]
    with pytest.raises(ValueError, match=r"cutoffs\[0\] must not be sources\[0\] again"):
        PullRaceCutoffObj(same, same)


@pytest.mark.parametrize("make", [PullRaceObj, PullRoundRobinObj, PullRaceRobinObj, PullZipObj])
def test_law_9_second_loop_is_refused(make: Callable[..., PullObj[Any]]) -> None:
    stream = make(ready(range(9)), slow(range(9)))
    assert_bound_to_loop(stream, lambda: anext(stream))


# In pipelines.


async def test_merge_in_the_middle_of_a_pipeline() -> None:
    stream = (
        SourceIterObj(range(5))
        .map(lambda x: x * 10)
        .merge(slow(range(5)), SourceIterObj(range(100, 105)).filter(lambda x: x != 102))
        .filter(lambda x: x != 3)
        .zip(itertools.count())
        .map(lambda pair: pair[0])
        .batch(2)
        .concat([[7]])
    )
    items = [x for window in await collect(stream) for x in window]
    assert sorted(items) == sorted([0, 10, 20, 30, 40, 0, 1, 2, 4, 100, 101, 103, 104, 7])
    assert len(asyncio.all_tasks()) == 1


async def test_law_17_merge_over_10_000_stages() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(10_000):
        stream = stream.map(lambda x: x + 1)
    assert sorted(await collect(stream.merge([1]))) == [1, 10_000, 10_001, 10_002]


async def test_law_17_merges_of_merges_do_not_recurse() -> None:
    stream: PullObj[int] = SourceIterObj(range(3))
    for _ in range(3_000):
        stream = PullConcatObj(stream, [7])
    assert (await collect(stream.take(5))) == [0, 1, 2, 7, 7]
    await stream.aclose()


@pytest.mark.parametrize("make", MERGES)
async def test_law_11_restart_starts_again(make: Callable[..., PullObj[Any]]) -> None:
    stream: Any = make([1, 2], SourceIterObj("ab").map(str.upper))
    first = await collect(stream)
    assert await collect(stream) == []
    stream.restart()
    assert await collect(stream) == first
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == first
    stream = make(ready([1]), [2])
    await collect(stream)
    with pytest.raises(RuntimeError, match="cannot restart"):
        stream.restart()


async def test_law_12_concurrent_pulls_are_served_in_order() -> None:
    async with PullRaceObj(timed(range(20), 0), slow(range(20))) as race:
        pulls = [asyncio.ensure_future(anext(race)) for _ in range(30)]
        order: list[int] = []
        for number, pull in enumerate(pulls):
            pull.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        pulls[3].cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
    order.remove(3)
    assert order == sorted(order)


# Cost.


async def test_ten_thousand_sources_start_and_close_in_time() -> None:
    begun = time.process_time()
    async with PullRaceObj(*(slow(itertools.count()) for _ in range(10_000))) as race:
        for _ in range(20_000):
            await anext(race)
    # In debug mode asyncio records the origin of each of the 10,000 tasks, which takes most of the time.
    assert time.process_time() - begun < (20 if asyncio.get_running_loop().get_debug() else 2)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.loops("asyncio")
async def test_cost_of_an_item_is_constant_in_sources() -> None:
    async def cost(m: int, items: int) -> float:
        best = float("inf")
        for _ in range(3):
            race = PullRaceObj(*(slow(range(items // m)) for _ in range(m)))
            begun = time.process_time()
            async for _item in race:
                pass
            best = min(best, time.process_time() - begun)
        return best / items

    # The bound is generous. Exact figures are measured by the benchmarks.
    assert await cost(2_000, 60_000) < 2 * await cost(10, 60_000)


def test_sync_iteration_is_not_offered() -> None:
    stream: Any = PullRaceObj([1])
    with pytest.raises(TypeError):
        iter(stream)


async def test_list_of_items_is_accepted_as_a_source() -> None:
    assert await collect(PullConcatObj([1, 2])) == [1, 2]
    assert await collect(PullConcatObj([[1], [2]])) == [[1], [2]]
    assert await collect(PullConcatObj([])) == []
    streams = [SourceIterObj([1]), SourceIterObj([2])]
    assert await collect(PullZipObj("ab", streams)) == [("a", streams[0]), ("b", streams[1])]
