"""`headrace.amap` after a fatal error: it stops early, and hands over what was paid for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Failure, MapError, PullMapPoolObj, PullObj, Retry, RunStopped, Verdict, amap
from tests.pool_support import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = 8


class Work:
    """Counts the calls by item; the calls of the items in `bad` are refused."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.calls: list[int] = []

    async def __call__(self, item: int) -> int:
        self.calls.append(item)
        await asyncio.sleep(0.01 * (1 + item % 3))
        if item in self.bad:
            raise Refused
        return item


def odd_or_refused(work: Work) -> Callable[[int], Awaitable[int]]:
    async def call(item: int) -> int:
        if item in (3, 5):
            raise ValueError(item)
        return await work(item)

    return call


@pytest.mark.virtual
@pytest.mark.parametrize("errors", ["raise", "return", "skip"])
async def test_amap_stops_whatever_becomes_of_errors(errors: Any) -> None:
    work = Work(20, 21)
    call: Any = odd_or_refused(work)
    with pytest.raises(MapError, match=r"of \d+ calls of .* failed; the others were not") as raised:
        await amap(call, range(1000), limit=LIMIT, errors=errors).collect()
    error = raised.value
    assert isinstance(error.exceptions[-1], RunStopped)
    assert len(work.calls) < 100
    failed = [3, 5, 20] if errors != "skip" else [20]
    refused = [index for index in (21,) if index in work.calls]
    assert [failure.index for failure in error.failures] == failed + refused
    assert [failure.error for failure in error.failures] == list(error.exceptions[:-1])
    assert sorted([*error.results, 20, *refused]) == sorted(work.calls)


@pytest.mark.virtual
@pytest.mark.parametrize("errors", ["return", "skip"])
async def test_amap_yields_all_results_before_the_stop(errors: Any) -> None:
    work, found = Work(20), list[Any]()
    call: Any = odd_or_refused(work)
    async with amap(call, range(1000), limit=LIMIT, errors=errors) as results:
        with pytest.raises(RunStopped, match="fatal error") as stopped:
            async for result in results:
                found.append(result)
        assert isinstance(stopped.value.__cause__, Refused)
        assert await anext(results, "the end") == "the end"
        waiting = await results.runner.drain()
    failures = [one for one in found if isinstance(one, Failure)]
    assert [one.index for one in failures] == ([3, 5, 20] if errors == "return" else [])
    assert sorted([*(one for one in found if one not in failures), 20]) == sorted(work.calls)
    assert all(len(task.args) == 1 for task in waiting)


@pytest.mark.virtual
@pytest.mark.parametrize("errors", ["return", "skip"])
@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_law_2_cancelled_collect_of_a_stopped_run(errors: Any, turns: int) -> None:
    work = Work(20)
    async with amap(work, range(1000), limit=LIMIT, errors=errors) as results:
        collecting = asyncio.ensure_future(results.collect())
        for _ in range(turns):
            await asyncio.sleep(0.002)
        collecting.cancel()
        await asyncio.wait([collecting])
        again = collecting if not collecting.cancelled() else results.collect()
        with pytest.raises(MapError) as raised:
            await again
    assert [failure.index for failure in raised.value.failures] == [20]
    assert sorted([*raised.value.results, 20]) == sorted(work.calls)


async def test_amap_skips_a_fatal_error_if_classify_says_so() -> None:
    never = Retry(0, classify=lambda _: Verdict("permanent"))
    found = await amap(Work(2), range(9), limit=2, retry=never, errors="skip").collect()
    assert found == [0, 1, 3, 4, 5, 6, 7, 8]


@pytest.mark.virtual
@pytest.mark.parametrize("errors", ["return", "skip"])
async def test_law_2_cancelled_while_the_results_are_gathered(
    errors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, collects = Work(20), list[int]()

    async def collect(stream: Any) -> list[Any]:
        collects.append(1)
        if len(collects) == 2:
            raise asyncio.CancelledError
        return await PullObj.collect(stream)

    # The second one gathers what the first has returned to the stream; it waits only if that takes long.
    monkeypatch.setattr(PullMapPoolObj, "collect", collect, raising=False)
    async with amap(work, range(1000), limit=LIMIT, errors=errors) as results:
        with pytest.raises(asyncio.CancelledError):
            await results.collect()
        with pytest.raises(MapError) as raised:
            await results.collect()
    assert [failure.index for failure in raised.value.failures] == [20]
    assert sorted([*raised.value.results, 20]) == sorted(work.calls)
