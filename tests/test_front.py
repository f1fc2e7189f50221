"""`headrace.amap`; `test_front_map.py` tests `headrace.map`."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    Failure,
    MapError,
    Rate,
    Retry,
    SourceCancelledError,
    SourceIterObj,
    amap,
)
from headrace._internal import progress_bar
from tests.support import Gate, eventually, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return item * 2


async def odd(item: int) -> int:
    await asyncio.sleep(0)
    if item % 2:
        raise ValueError(item)
    return item


@pytest.mark.parametrize("ordered", [True, False])
async def test_results_of_all_items(ordered: bool) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            yield number

    for items in (range(20), iter(range(20)), numbers()):
        results = await amap(double, items, limit=3, ordered=ordered).collect()
        assert sorted(results) == [item * 2 for item in range(20)]
        assert not ordered or results == sorted(results)


async def test_limit_is_kept_and_may_be_shared() -> None:
    gate = Gate()
    shared = CapacitySource(3)
    async with amap(gate, range(9), limit=shared) as one, amap(gate, range(9), limit=shared) as two:
        pulls = [asyncio.ensure_future(anext(stream)) for stream in (one, two)]
        await quiet()
        assert len(gate.calls) == 3
        gate.open.set()
        await asyncio.gather(*pulls)
    assert shared.held == 0


async def test_infinite_items_are_not_read_ahead_without_end() -> None:
    def forever() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    async with amap(double, forever(), limit=4) as results:
        assert [await anext(results) for _ in range(5)] == [0, 2, 4, 6, 8]


@pytest.mark.virtual
async def test_rate_is_kept() -> None:
    loop = asyncio.get_running_loop()
    for rate in ("30/m", Rate(1, 2)):
        times: list[float] = []

        async def call(_: int, times: list[float] = times) -> None:
            times.append(loop.time())

        await amap(call, range(4), limit=9, rate=rate).collect()
        assert [time - times[0] for time in times] == pytest.approx([0, 2, 4, 6])
    # A limit that is shared gets no rate.
    shared = CapacitySource(2, clock=loop.time)
    assert await amap(double, range(2), limit=shared, rate="1/s").collect() == [0, 2]
    assert list(shared.limits) == ["slots"]


@pytest.mark.virtual
async def test_retry_and_timeout() -> None:
    calls: list[int] = []

    async def call(item: int) -> int:
        calls.append(item)
        if calls.count(item) <= item:
            raise OSError(item)
        return item

    results = amap(call, range(4), limit=2, retry=2, errors="return")
    *good, bad = await results.collect()
    assert good == [0, 1, 2]
    assert isinstance(bad, Failure)
    assert (bad.index, bad.item, bad.attempts) == (3, 3, 3)
    assert isinstance(bad.error, OSError)
    assert [calls.count(item) for item in range(4)] == [1, 2, 3, 3]

    with pytest.raises(MapError) as caught:
        await amap(asyncio.sleep, [1, 30], limit=2, timeout=2, retry=Retry(1, backoff=1)).collect()
    (failure,) = caught.value.failures
    assert str(failure.error) == "amap(sleep): task 1 ran longer than its timeout of 2 s"
    assert failure.attempts == 2


async def test_law_3_error_is_raised_in_its_place() -> None:
    seen: list[Any] = []
    async with amap(odd, range(5), limit=2) as results:
        while True:
            try:
                seen.append(await anext(results))
            except ValueError as error:
                seen.append((error.args, error.__notes__))
            except StopAsyncIteration:
                break
    assert seen == [
        0,
        ((1,), ["raised in amap(odd): item 1, 1"]),
        2,
        ((3,), ["raised in amap(odd): item 3, 3"]),
        4,
    ]


async def test_collect_finishes_and_raises_one_error() -> None:
    with pytest.raises(MapError, match=r"2 of 5 calls of amap\(odd\) failed") as caught:
        await amap(odd, range(5), limit=2).collect()
    error = caught.value
    assert error.results == [0, 2, 4]
    assert [(one.index, one.item, one.attempts) for one in error.failures] == [(1, 1, 1), (3, 3, 1)]
    assert error.exceptions == tuple(one.error for one in error.failures)
    matching, rest = error.split(lambda one: one.args == (3,))
    assert isinstance(matching, MapError)
    assert isinstance(rest, MapError)
    assert [one.index for one in matching.failures] == [3]
    assert rest.results == [0, 2, 4]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert (again.results, len(again.failures), str(again)) == (error.results, 2, str(error))
    assert copy.copy(error).results == error.results


async def test_failed_items_are_returned_or_skipped() -> None:
    returned = await amap(odd, range(4), limit=1, errors="return").collect()
    assert returned[::2] == [0, 2]
    assert [(one.index, one.item) for one in returned if isinstance(one, Failure)] == [
        (1, 1),
        (3, 3),
    ]
    assert await amap(odd, range(4), limit=1, errors="skip").collect() == [0, 2]


async def test_cancelled_call_is_a_failure() -> None:
    async def call(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    with pytest.raises(MapError) as caught:
        await amap(call, range(3), limit=1).collect()
    assert caught.value.results == [0, 2]
    assert isinstance(caught.value.exceptions[0], SourceCancelledError)


async def test_errors_of_items_join_the_group() -> None:
    source = SourceIterObj(["1", "x", "2", "3"]).map(int)
    with pytest.raises(
        MapError, match=r"2 of 3 calls .* failed, and its items raised 1 error"
    ) as caught:
        await amap(odd, source, limit=1).collect()
    assert caught.value.results == [2]
    assert sorted(map(str, caught.value.exceptions))[:2] == ["1", "3"]
    assert "'x'" in str(caught.value.exceptions[1])


class Broken:
    """An async iterator that raises for ever after its first items."""

    def __init__(self, items: int) -> None:
        self.left = items

    def __aiter__(self) -> Broken:
        return self

    async def __anext__(self) -> int:
        if self.left:
            self.left -= 1
            return self.left
        raise ConnectionError("gone")


async def test_items_that_raise_for_ever_end_the_collection() -> None:
    with pytest.raises(
        MapError, match=r"0 of 3 calls .*, and its items raised 10[01] errors"
    ) as caught:
        await amap(double, Broken(3), limit=2).collect()
    assert caught.value.results == [4, 2, 0]


async def test_law_2_cancelled_collect_loses_nothing() -> None:
    gate = Gate()
    async with amap(gate, range(4), limit=4, ordered=False) as results:
        collecting = asyncio.ensure_future(results.collect())
        await quiet()
        gate.open.set()
        for _ in range(3):
            await asyncio.sleep(0)
        collecting.cancel()
        await asyncio.wait([collecting])
        if collecting.cancelled():
            assert sorted(await results.collect()) == [0, 10, 20, 30]


@pytest.mark.parametrize("turns", range(12))
async def test_law_2_cancelled_at_each_step_loses_nothing(turns: int) -> None:
    async with amap(odd, range(6), limit=2) as results:
        collecting = asyncio.ensure_future(results.collect())
        for _ in range(turns):
            await asyncio.sleep(0)
        collecting.cancel()
        await asyncio.wait([collecting])
        if not collecting.cancelled():
            caught: Any = collecting.exception()
        else:
            with pytest.raises(MapError) as info:
                await results.collect()
            caught = info.value
        assert caught.results == [0, 2, 4]
        assert [one.index for one in caught.failures] == [1, 3, 5]


async def test_restart_counts_again() -> None:
    results = amap(odd, [1, 2], limit=1, errors="return")
    for _ in range(2):
        first, second = await results.collect()
        assert isinstance(first, Failure)
        assert (first.index, second) == (0, 2)
        results.restart()


async def test_law_4_leaving_the_block_stops_all_calls() -> None:
    gate = Gate()
    async with amap(gate, range(9), limit=3) as results:
        pull = asyncio.ensure_future(anext(results))
        await quiet()
        pull.cancel()
    assert len(asyncio.all_tasks()) == 1


async def test_key_names_the_call() -> None:
    names: list[str] = []

    async def call(page: str) -> str:
        task = asyncio.current_task()
        names.append("" if task is None else task.get_name())
        return page

    await amap(call, ["/a", "/b"], limit=1, key=lambda page: f"page {page}").collect()
    await amap(call, ["/a"], limit=1).collect()
    assert names == [
        "amap(call): task page /a",
        "amap(call): task page /b",
        "amap(call): task 0",
    ]
    gate = Gate()
    async with amap(gate, [1, 1], limit=2, key=str, errors="return", ordered=False) as results:
        first = await anext(results)
        assert isinstance(first, Failure)
        assert "key" in str(first.error)
        assert first.attempts == 0


async def test_progress_is_reported() -> None:
    seen: list[tuple[int, int | None]] = []
    await amap(
        odd, range(3), limit=1, errors="skip", progress=lambda *one: seen.append(one)
    ).collect()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    await amap(odd, iter([2]), limit=1, progress=lambda *one: seen.append(one)).collect()
    assert seen[-1] == (1, None)


async def test_bar_of_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: name == "tqdm" or None)
    await amap(odd, range(3), limit=1, errors="skip", progress=True).collect()
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "amap(odd): 100%" in last
    assert "3/3" in last
    assert "failed=1" in last
    assert last.endswith("\n"), "the bar is left as it is"


async def test_bar_of_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: name == "rich" or None)
    await amap(odd, range(3), limit=1, errors="skip", progress=True).collect()
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "1 failed" in shown
    # A bar that is not read to its end is closed with the stream.
    before = threading.active_count()
    async with amap(odd, range(3), limit=1, progress=True) as results:
        await anext(results)
    # rich stops its thread without waiting for the end of it.
    await eventually(lambda: threading.active_count() <= before)


def test_bar_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"install headrace\[progress\], or pass a function"):
        amap(odd, range(3), limit=1, progress=True)


# Plain functions.


async def test_plain_function_runs_in_threads() -> None:
    # Passed only when all calls run at the same time.
    together = threading.Barrier(20)

    def block(item: int) -> int:
        together.wait(20)
        return item

    assert await amap(block, range(20), limit=20).collect() == list(range(20))


async def test_plain_function_on_the_loop() -> None:
    here = threading.get_ident()

    def where(_: int) -> int:
        return threading.get_ident()

    assert await amap(where, range(3), limit=2, thread=False).collect() == [here] * 3
    assert here not in await amap(where, range(3), limit=2).collect()


def disguised(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda item: fn(*[item])


@pytest.mark.parametrize("make", [disguised, partial])
async def test_function_that_returns_an_awaitable(make: Callable[[Any], Any]) -> None:
    assert await amap(make(double), range(50), limit=3).collect() == [
        item * 2 for item in range(50)
    ]
    with pytest.raises(MapError) as caught:
        await amap(make(odd), range(3), limit=2).collect()
    assert caught.value.results == [0, 2]


async def test_awaitables_of_threads_end_with_the_stream() -> None:
    ended: list[int] = []
    begun = asyncio.Event()

    async def call(item: int) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    async with amap(disguised(call), range(1), limit=1) as results:
        pull = asyncio.ensure_future(anext(results))
        await begun.wait()
        pull.cancel()
    assert ended == [0]
    with pytest.raises(MapError) as caught:
        await amap(disguised(call), range(1), limit=1, timeout=0.01).collect()
    assert isinstance(caught.value.exceptions[0], TimeoutError)


async def test_callable_object_that_is_async() -> None:
    class Client:
        async def __call__(self, item: int) -> int:
            return threading.get_ident()

    assert await amap(Client(), [1], limit=1).collect() == [threading.get_ident()]


# Mistakes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"limit": "20"},
            r"limit must be a CapacitySource, such as CapacitySource\(20\), or a number",
        ),
        ({"limit": 0}, r"limit must be at least 1, got 0"),
        ({"rate": "500"}, r"rate must be a number above 0 per .*, such as 500/m, got '500'"),
        ({"rate": 500}, r"rate must be a string such as '500/m', or a Rate, got 500 \(int\)"),
        ({"retry": True}, r"retry must be a Retry, a number of retries or None, not True"),
        ({"retry": -1}, r"retry must be at least 0"),
        ({"timeout": 0}, r"timeout must be positive"),
        ({"ordered": 1}, r"ordered must be True or False"),
        ({"errors": "ignore"}, r"errors must be 'raise', 'return' or 'skip', got 'ignore'"),
        ({"progress": "yes"}, r"progress must be True, False or a function of \(done, total\)"),
        ({"key": "id"}, r"key must be callable or None, got 'id'"),
        ({"thread": "no"}, r"thread must be True or False, got 'no'"),
        ({"thread": True}, r"thread=True takes a plain function"),
        ({"limit": CapacitySource({"tokens": 5})}, r"'slots' is limited neither"),
    ],
)
def test_law_14_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    some: dict[str, Any] = {"limit": 2, **options}
    with pytest.raises((TypeError, ValueError), match=message):
        amap(double, [1], **some)


def test_law_14_swapped_arguments_are_refused() -> None:
    fn, items = [1], double
    function: Any = fn
    with pytest.raises(TypeError, match=r"fn must be callable, not \[1\] \(list\)"):
        amap(function, [1], limit=1)
    source: Any = items
    with pytest.raises(
        TypeError, match=r"items must be an iterable .*; call it, and give what it returns"
    ):
        amap(double, source, limit=1)


async def test_errors_are_freed_without_a_collection() -> None:
    class Item:
        pass

    async def fail(_: Item) -> None:
        raise ValueError

    for errors in ("raise", "skip"):
        item = Item()
        alive = weakref.ref(item)
        gc.disable()
        try:
            with contextlib.suppress(MapError):
                await amap(fail, [item], limit=1, errors=errors).collect()
            del item
            await asyncio.sleep(0)
            assert alive() is None
        finally:
            gc.enable()
