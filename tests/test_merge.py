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
    AsyncIteratorCombiner,
    ClosedError,
    PullConcatObj,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
    PushPullBufferObj,
    SourceBufferObj,
    SourceIterObj,
    SourceObj,
)
from tests.support import Heart, assert_bound_to_loop, collect, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

MERGES: list[Callable[..., PullObj[Any]]] = [
    PullConcatObj,
    PullZipObj,
    PullRoundRobinObj,
    PullRaceObj,
    PullRaceRobinObj,
]


async def ready(items: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield items without waiting."""
    for item in items:
        yield item


async def slow(items: Iterable[Any], iterations: int = 1) -> AsyncIterator[Any]:
    """Yield items, each after some event-loop iterations."""
    for item in items:
        for _ in range(iterations):
            await asyncio.sleep(0)
        yield item


async def timed(items: Iterable[Any], seconds: float) -> AsyncIterator[Any]:
    """Yield items, each after some time."""
    for item in items:
        await asyncio.sleep(seconds)
        yield item


def rounds(lists: list[list[Any]]) -> list[list[Any]]:
    """Group the items of some lists in rounds, one of each list that has not ended."""
    missing = object()
    rows = itertools.zip_longest(*lists, fillvalue=missing)
    return [[item for item in row if item is not missing] for row in rows]


# Against lists.

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5)
against_lists = settings(max_examples=60)
SPEEDS = st.lists(st.integers(0, 4), min_size=5, max_size=5)


def source(items: list[Any], speed: int) -> Any:
    """Return a list, a native source, or an async generator that never waits or waits."""
    if speed == 0:
        return items.copy()
    if speed == 1:
        return SourceBufferObj(items)
    return ready(items) if speed == 2 else slow(items, speed)


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


async def by_a_bare_yield() -> None:
    await asyncio.sleep(0)


async def by_a_future() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


async def by_a_task() -> None:
    await asyncio.ensure_future(asyncio.sleep(0))


# The iterations needed: one for a bare yield; one for the callback that resolves the future and one for asyncio's call_soon
# of its waiter; two for the steps of the other task and one for that call_soon. An eager task takes its first step at once.
@pytest.mark.parametrize(
    ("needs", "least"), [(by_a_bare_yield, 1), (by_a_future, 2), (by_a_task, 3)]
)
@pytest.mark.parametrize("make", [PullRaceObj, PullRaceRobinObj, PullRoundRobinObj])
async def test_law_16_ready_source_starves_no_other(
    make: Callable[..., PullObj[Any]],
    needs: Callable[[], Awaitable[None]],
    least: int,
    loop_kind: str,
) -> None:
    least -= needs is by_a_task and loop_kind == "eager"
    beats = 0
    iterations: list[int] = []

    async def needs_the_loop() -> AsyncIterator[int]:
        while True:
            started = beats
            await needs()
            iterations.append(beats - started)
            yield beats

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    # It counts iterations, starting before the first pull.
    heart = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    late: list[int] = []
    async with make(itertools.repeat("fast"), needs_the_loop()) as stream:
        async for item in stream:
            if item != "fast":
                late.append(beats - item)
            if len(late) == 20:
                break
    heart.cancel()
    await asyncio.wait([heart])
    # The source continues as soon as its own task would. Its item is received in the same iteration by a consumer that
    # keeps pulling, and in the next one by a waiting pull, which asyncio wakes with another call_soon.
    assert set(iterations) == {least}
    assert max(late) <= 1


@pytest.mark.parametrize("make", MERGES)
async def test_law_16_merge_of_ready_sources_yields(
    make: Callable[..., PullObj[Any]],
) -> None:
    async with Heart() as heart:
        await collect(
            make(*(ready(range(20_000)) for _ in range(4)), SourceIterObj(range(20_000)).map(str))
        )
    assert heart.beats > 5


async def test_law_16_source_without_items_yields() -> None:
    never = SourceIterObj(itertools.count()).filter(lambda _: False)
    async with PullRaceObj(never, [1]) as race:
        assert await anext(race) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(race)


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


async def test_error_costs_a_row_of_zip() -> None:
    def third(item: int) -> int:
        if item == 2:
            raise ZeroDivisionError
        return item

    stream = SourceIterObj(range(5)).map(third).zip("abcde", slow("ABCDE"))
    items: list[Any] = []
    while True:
        try:
            items.append(await anext(stream))
        except ZeroDivisionError:
            items.append("error")
        except StopAsyncIteration:
            break
    assert items == [(0, "a", "A"), (1, "b", "B"), "error", (3, "d", "D"), (4, "e", "E")]


async def test_all_errors_of_a_row_are_raised() -> None:
    def fail(item: int) -> int:
        raise ValueError(item)

    stream = PullZipObj(SourceIterObj([1]).map(fail), SourceIterObj([2]).map(fail))
    messages: list[str] = []
    for _ in range(2):
        with pytest.raises(ValueError) as raised:
            await anext(stream)
        messages.append(str(raised.value))
    assert messages == ["1", "2"]
    assert await collect(stream) == []


# Labels.


async def test_labelled_merges_yield_labels() -> None:
    def sources() -> dict[str, Any]:
        return {"x": [1, 2], "y": ready("ab"), "z": slow("AB")}

    assert await collect(PullLabeledZipObj(sources())) == [
        (("x", 1), ("y", "a"), ("z", "A")),
        (("x", 2), ("y", "b"), ("z", "B")),
    ]
    interleaved = [("x", 1), ("y", "a"), ("z", "A"), ("x", 2), ("y", "b"), ("z", "B")]
    assert await collect(PullLabeledRoundRobinObj(sources())) == interleaved
    assert await collect(PullLabeledRaceRobinObj(sources())) == interleaved
    assert sorted(map(str, await collect(PullLabeledRaceObj(sources())))) == sorted(
        map(str, interleaved)
    )
    assert await collect(PullLabeledZipObj({"x": [], "y": "a"}, longest=True, fill=0)) == [
        (("x", 0), ("y", "a"))
    ]


async def test_labelled_methods_put_the_stream_first() -> None:
    def stream() -> PullObj[int]:
        return SourceIterObj([1, 2]).map(lambda n: n)

    interleaved = [("x", 1), (0, "a"), ("x", 2), (0, "b"), (0, "c")]
    abc: dict[object, Any] = {0: "abc"}
    assert await collect(stream().round_robin_labeled("x", abc)) == interleaved
    assert await collect(stream().merge_labeled("x", abc, fair=True)) == interleaved
    assert isinstance(stream().merge_labeled("x", abc, fair=True), PullLabeledRaceRobinObj)
    race = stream().merge_labeled("x", {**abc, None: slow("d")}, prefetch=2, errors="skip")
    assert isinstance(race, PullLabeledRaceObj)
    assert race.sources.keys() == {"x", 0, None}
    assert Counter(await collect(race)) == Counter([*interleaved, (None, "d")])
    assert await collect(stream().zip_labeled("x", abc)) == [
        (("x", 1), (0, "a")),
        (("x", 2), (0, "b")),
    ]
    rows = await collect(stream().zip_labeled("x", abc, longest=True, fill="-"))
    assert rows[2] == (("x", "-"), (0, "c"))
    strict = stream().zip_labeled("x", abc, strict=True)
    with pytest.raises(ValueError, match="ended"):
        await collect(strict)
    assert await collect(stream().merge_labeled("x", {})) == [("x", 1), ("x", 2)]


@pytest.mark.parametrize("name", ["zip", "round_robin", "merge"])
def test_law_14_bad_labels_are_refused(name: str) -> None:
    labelled = getattr(SourceIterObj([1]), f"{name}_labeled")
    with pytest.raises(TypeError, match=r"others must be a mapping of labels .*, got \[2\] \(list"):
        labelled("a", [2])
    with pytest.raises(ValueError, match="label must not be one of others, got 'a'; give each"):
        labelled("a", {"b": [1], "a": [2]})
    with pytest.raises(TypeError, match=r"label must be hashable, got \[\] \(list\)"):
        labelled([], {"a": [2]})
    with pytest.raises(TypeError, match=r"sources\['b'\] must be an iterable .*, not 3"):
        labelled("a", {"b": 3})
    with pytest.raises(ValueError, match="prefetch must be at least 1"):
        labelled("a", {"b": [1]}, prefetch=0)


async def test_none_is_a_valid_label() -> None:
    sources: dict[int | None, Any] = {None: [1], 1: slow("a")}
    async with PullLabeledRaceObj(sources) as race:
        assert list(race.sources) == [None, 1]
        assert await collect(race) == [(None, 1), (1, "a")]
    stream = PullLabeledRoundRobinObj[int | None, int]({0: [1]})
    stream.add(None, [2])
    assert await collect(stream) == [(0, 1), (None, 2)]


async def test_labelled_error_names_its_label() -> None:
    async def fails() -> AsyncIterator[int]:
        for _ in range(1):
            raise ValueError
        yield 1

    async with PullLabeledRaceObj({"left": fails()}) as race:
        with pytest.raises(ValueError) as raised:
            await anext(race)
    [note] = raised.value.__notes__
    assert note.startswith("raised by source 'left' of PullLabeledRaceObj, test_labelled_error")


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


# Errors.


def flaky(bad: int) -> PullObj[int]:
    def check(item: int) -> int:
        if item == bad:
            raise ValueError(item)
        return item

    return SourceIterObj(range(5)).map(check)


@pytest.mark.parametrize("make", [PullConcatObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_law_3_error_of_a_source_costs_one_item(make: Callable[..., PullObj[Any]]) -> None:
    items: list[Any] = []
    notes: list[str] = []
    stream = make(flaky(2), slow("abc"))
    while True:
        try:
            items.append(await anext(stream))
        except ValueError as error:
            items.append("error")
            notes = error.__notes__
        except StopAsyncIteration:
            break
    assert Counter(map(str, items)) == Counter(["0", "1", "error", "3", "4", "a", "b", "c"])
    assert notes == [
        "raised by transform of PullMapObj",
        f"raised by source 0 of {make.__name__}, PullMapObj",
    ]


@pytest.mark.parametrize("make", [PullConcatObj, PullRoundRobinObj, PullRaceObj, PullRaceRobinObj])
async def test_skip_drops_errors(make: Callable[..., PullObj[Any]]) -> None:
    async def fails() -> AsyncIterator[str]:
        yield "b"
        await asyncio.sleep(0)
        raise ValueError

    stream = make(flaky(2), fails(), slow("a"), errors="skip")
    assert sorted(map(str, await collect(stream))) == ["0", "1", "3", "4", "a", "b"]


async def test_skip_drops_rows_of_zip() -> None:
    stream = PullZipObj(flaky(1), "abcde", errors="skip")
    items = await collect(stream)
    assert items == [(0, "a"), (2, "b"), (3, "c"), (4, "d")]


@pytest.mark.parametrize("make", MERGES)
async def test_stop_ends_with_the_error(make: Callable[..., PullObj[Any]]) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    stream = make(flaky(0), slow("abc"), buffer.source, errors="stop")
    buffer.sink.next_nowait(1)
    with pytest.raises(ValueError):
        await collect(stream)
    assert await collect(stream) == []
    assert len(asyncio.all_tasks()) == 1


async def test_skip_raises_keyboard_interrupt() -> None:
    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise KeyboardInterrupt

    stream = PullRaceObj(fails(), errors="skip")
    assert await anext(stream) == "a"
    with pytest.raises(KeyboardInterrupt):
        await anext(stream)
    assert await collect(stream) == []


# `all`, `any` and `race` of a combiner.


async def test_all_race_and_any_take_one_value() -> None:
    combiner = AsyncIteratorCombiner([1, 2, 3], slow("ab"))
    async with combiner:
        assert await combiner.all() == (1, "a")
        assert await combiner.all() == (2, "b")
        with pytest.raises(StopAsyncIteration):
            await combiner.all()
        assert await combiner.race() == 3
        for step in (combiner.race, combiner.any, combiner.all):
            with pytest.raises(StopAsyncIteration):
                await step()


async def test_all_after_a_cancellation_is_complete() -> None:
    more, start = asyncio.Event(), asyncio.Event()

    async def first() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async def second() -> AsyncIterator[str]:
        await start.wait()
        yield "a"

    async with AsyncIteratorCombiner(first(), second()) as combiner:
        cancelled = asyncio.ensure_future(combiner.all())
        await quiet()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        # The cancelled call had found this item already.
        assert await combiner.race() == 1
        start.set()
        step = asyncio.ensure_future(combiner.all())
        await quiet()
        more.set()
        assert await step == (2, "a")


async def test_any_returns_the_first_success() -> None:
    async def fails(iterations: int) -> AsyncIterator[str]:
        for _ in range(iterations):
            await asyncio.sleep(0)
        if iterations >= 0:
            raise ValueError(iterations)
        yield ""

    async with AsyncIteratorCombiner(fails(0), slow("a", 5), fails(2)) as combiner:
        assert await combiner.any() == "a"
        with pytest.raises(StopAsyncIteration):
            await combiner.any()
    async with AsyncIteratorCombiner(fails(0), fails(2)) as combiner:
        with pytest.raises(ExceptionGroup, match="all sources failed") as raised:
            await combiner.any()
        assert sorted(str(error) for error in raised.value.exceptions) == ["0", "2"]
        with pytest.raises(StopAsyncIteration):
            await combiner.any()


async def test_any_does_not_pull_a_failed_source_again() -> None:
    class Flaky(SourceObj[int]):
        pulls = 0

        async def __anext__(self) -> int:
            self.pulls += 1
            if self.pulls % 2:
                raise ValueError(self.pulls)
            return self.pulls

    flaky = Flaky()
    async with AsyncIteratorCombiner(flaky, slow("ab", 9)) as combiner:
        assert await combiner.any() == "a"
        assert flaky.pulls == 1
        assert await combiner.any() == 2


async def test_combiner_methods_share_the_sources() -> None:
    async with AsyncIteratorCombiner([1, 2, 3, 4], ready("abcd")) as combiner:
        interleaved = combiner.round_robin_generator()
        assert interleaved is combiner.round_robin_generator()
        items: list[Any] = [await combiner.race(), *await combiner.all(), await anext(interleaved)]
        items += [item async for item in interleaved]
    assert Counter(map(str, items)) == Counter("1234abcd")


# Live sources.


@pytest.mark.parametrize("make", MERGES)
async def test_added_source_is_used_from_the_next_pull(
    make: Callable[..., PullObj[Any]],
) -> None:
    stream: Any = make([1, 2, 3], slow("abc"))
    first = await anext(stream)
    more = [7, 8, 9]
    stream.add(more)
    assert stream.sources[-1] is more
    items = [first, *await collect(stream)]
    if make is PullZipObj:
        assert items == [(1, "a"), (2, "b", 7), (3, "c", 8)]
    else:
        assert Counter(map(str, items)) == Counter("123abc789")


async def test_source_added_during_a_pull_is_pulled() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with PullRaceObj(buffer.source) as race:
        pulling = asyncio.ensure_future(anext(race))
        await quiet()
        race.add([5])
        assert await pulling == 5


@pytest.mark.parametrize("make", [PullRoundRobinObj, PullRaceObj, PullRaceRobinObj, PullZipObj])
async def test_removed_source_is_closed_in_its_task(
    make: Callable[..., PullObj[Any]],
) -> None:
    ended: list[bool] = []

    async def endless() -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            while True:
                await asyncio.sleep(0)
                yield "x"
        finally:
            ended.append(asyncio.current_task() is task)

    removed = endless()
    stream: Any = make([1, 2, 3], removed)
    await anext(stream)
    await stream.remove(removed)
    assert ended == [True]
    assert len(stream.sources) == 1
    items = await collect(stream)
    assert "x" not in items
    assert len(items) in (2, 3)
    with pytest.raises(ValueError, match="source must be one of the sources"):
        await stream.remove(removed)


async def test_remove_raises_the_error_of_closing() -> None:
    async def fails() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            raise ValueError("closing")

    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    removed = fails()
    async with PullRoundRobinObj(removed, buffer.source) as stream:
        pulling = asyncio.ensure_future(anext(stream))
        await quiet()
        with pytest.raises(ValueError, match="closing") as raised:
            await stream.remove(removed)
        assert raised.value.__notes__ == [
            f"raised by source 0 of PullRoundRobinObj, {fails.__qualname__}"
        ]
        buffer.sink.next_nowait(3)
        assert await pulling == 3


async def test_ended_sources_are_forgotten() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    async with PullRaceObj(buffer.source) as race:
        for number in range(300):
            race.add(slow([number]))
            assert await anext(race) == number
            await quiet()
            # The end of a source is detected at its next pull.
            assert len(race.sources) <= 2


async def test_labelled_sources_are_live() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    race = PullLabeledRaceObj({"a": buffer.source})
    race.add("b", [1])
    assert await anext(race) == ("b", 1)
    with pytest.raises(ValueError, match="label is taken already, got 'a'"):
        race.add("a", [2])
    with pytest.raises(KeyError):
        await race.remove("c")
    await race.remove("a")
    assert await collect(race) == []
    with pytest.raises(ClosedError):
        race.add("c", [1])


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
