"""`map` with `partition_by`: errors, bad keys, cancellation and closing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullMapObj
from tests.concurrent_sources import outcomes_of
from tests.support import collect, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOTH_ORDERS = pytest.mark.parametrize("ordered", [True, False])


@BOTH_ORDERS
async def test_law_3_error_costs_one_item_and_its_key_goes_on(ordered: bool) -> None:
    errors = {n: ValueError(n) for n in (1, 3, 4, 6)}

    async def work(n: int) -> int:
        await yield_to_loop(n % 3)
        if n in errors:
            raise errors[n]
        return n

    stream = PullMapObj(
        range(9), work, concurrency=3, ordered=ordered, partition_by=lambda n: n % 2
    )
    outcomes = await outcomes_of(stream, lambda: yield_to_loop(1))
    assert sorted(outcomes) == list(range(9))
    assert [n for n in outcomes if n % 2] == [1, 3, 5, 7]
    assert [n for n in outcomes if not n % 2] == [0, 2, 4, 6, 8]
    for n, error in errors.items():
        assert error.__notes__ == [f"raised by transform of PullMapObj: item {n}"]


class Unhashable:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __hash__(self) -> int:
        raise self.error


async def key_later() -> str:
    return "a"


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (asyncio.CancelledError("mine"), asyncio.CancelledError, "mine"),
        (StopIteration(), RuntimeError, "partition_by of PullMapObj raised StopIteration"),
        (GeneratorExit(), RuntimeError, "partition_by of PullMapObj raised GeneratorExit"),
        ([1], TypeError, r"partition_by must return a hashable key, got \[1\] \(list\)"),
        (Unhashable(TypeError("no")), TypeError, "partition_by must return a hashable key, got"),
        (Unhashable(LookupError("no")), LookupError, "no"),
        (key_later, TypeError, r"must return a key, got the awaitable <coroutine .* \(coroutine\)"),
    ],
)
@BOTH_ORDERS
async def test_law_3_error_of_the_key_costs_one_item(
    key: Any, kind: type[BaseException], message: str, ordered: bool
) -> None:
    called: list[int] = []

    def key_of(n: int) -> Any:
        if n != 2:
            return n % 2
        if isinstance(key, BaseException):
            raise key
        return key() if callable(key) else key

    async def work(n: int) -> int:
        called.append(n)
        await yield_to_loop(2)
        return n

    stream = PullMapObj(range(6), work, concurrency=2, ordered=ordered, partition_by=key_of)
    outcomes: list[Any] = []
    notes: list[str] = []
    for _ in range(6):
        try:
            outcomes.append(await anext(stream))
        except BaseException as error:
            with pytest.raises(kind, match=message):
                raise
            notes.extend(getattr(error, "__notes__", ()))
            outcomes.append(2)
    assert sorted(outcomes) == list(range(6))
    assert (outcomes == list(range(6))) >= ordered
    assert called == [0, 1, 3, 4, 5]
    is_noted = kind not in (RuntimeError, asyncio.CancelledError)
    assert notes == ["raised by partition_by of PullMapObj: item 2"] * is_noted
    assert await collect(stream) == []


async def test_key_that_changes_is_reported_and_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Key:
        value = 0

        def __hash__(self) -> int:
            return self.value

    async def work(n: int) -> int:
        await asyncio.sleep(0)
        key.value = n
        return n

    key = Key()
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)
    stream = PullMapObj(range(1, 5), work, concurrency=2, partition_by=lambda _: key)
    assert await collect(stream) == [1, 2, 3, 4]
    assert {type(report.exc_value) for report in reported} == {KeyError}


@BOTH_ORDERS
@pytest.mark.parametrize("after", range(12))
async def test_law_4_closing_ends_the_items_that_wait(ordered: bool, after: int) -> None:
    called: list[int] = []
    ended: list[int] = []
    closed: list[list[int]] = []

    async def source() -> AsyncIterator[int]:
        try:
            for n in range(30):
                yield n
        finally:
            closed.append(list(ended))

    async def work(n: int) -> int:
        called.append(n)
        try:
            await yield_to_loop(3)
        finally:
            ended.append(n)
        return n

    stream = PullMapObj(
        source(), work, concurrency=3, ordered=ordered, partition_by=lambda n: n // 8
    )
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(after)
    await stream.aclose()
    # The source is closed after the last call, and the other items that waited are not called.
    assert called == ended == list(range(len(called)))
    assert len(called) <= 1 + (after + 4) // 4
    assert closed == [called] or not called
    await asyncio.gather(pull, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 1


@BOTH_ORDERS
@pytest.mark.parametrize("victim", range(5))
@pytest.mark.parametrize("after", range(9))
async def test_foreign_cancellation_costs_one_item(ordered: bool, victim: int, after: int) -> None:
    called: list[int] = []

    async def work(n: int) -> int:
        called.append(n)
        await yield_to_loop(2)
        return n

    stream = PullMapObj(
        range(12), work, concurrency=2, ordered=ordered, partition_by=lambda n: n // 6
    )
    async with stream:
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(after)
        others = asyncio.all_tasks() - {asyncio.current_task(), pull}
        tasks = [task for task in others if task.get_name() == "transform of PullMapObj"]
        if victim < len(tasks):
            tasks[victim].cancel()
        outcomes: list[int] = []
        cancelled = 0
        try:
            outcomes.append(await pull)
        except asyncio.CancelledError:
            cancelled += 1
        while True:
            try:
                outcomes.append(await anext(stream))
            except asyncio.CancelledError:
                cancelled += 1
            except StopAsyncIteration:
                break
    assert cancelled <= 1
    assert len(outcomes) + cancelled == 12
    for key in (0, 1):
        assert (of_key := [n for n in called if n // 6 == key]) == sorted(of_key)
    assert wrong(stream)._calls.waiting == 0
