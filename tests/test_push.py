"""The push driver and its basic operators, guarantee by guarantee."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PushDedupeObj,
    PushDistributeObj,
    PushFilterObj,
    PushForkObj,
    PushMapObj,
    PushObj1To1Link,
    PushReduceObj,
    PushSerialObj,
    SinkCollectObj,
    SinkObj,
)
from tests.support import Heart, wrong

if TYPE_CHECKING:
    from collections.abc import Callable


class Slow(SinkObj[Any]):
    """A sink that accepts items once the test sets `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.started: list[Any] = []
        self.accepted: list[Any] = []
        self.ended: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        self.started.append(item)
        await self.open.wait()
        self.accepted.append(item)

    async def return_impl(self, value: Any) -> None:
        self.ended.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        self.ended.append(error)


class Failing(SinkObj[Any]):
    async def next_impl(self, item: Any) -> None:
        raise OSError(item)


async def test_distribute_routes_by_number() -> None:
    high: SinkCollectObj[str] = SinkCollectObj()
    low: SinkCollectObj[str] = SinkCollectObj()
    distributor = PushDistributeObj([high, low], lambda s: 0 if "URGENT" in s else 1)
    await distributor.next("INFO: System normal.")
    await distributor.next("ALERT: URGENT CPU at 99%.")
    await distributor.return_()
    assert high.buffer == ["ALERT: URGENT CPU at 99%."]
    assert low.buffer == ["INFO: System normal."]
    assert high.closed
    assert low.closed


async def test_map_and_filter_fuse() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()

    async def even(n: int) -> bool:
        await asyncio.sleep(0)
        return n % 2 == 0

    pipeline = PushMapObj[int, int](
        PushFilterObj[int](PushMapObj(sink, str), even), lambda n: n + 1
    )
    for n in range(5):
        assert await pipeline.next(n) == IteratorResult(None, False)
    assert sink.buffer == ["2", "4"]


async def test_push_returns_once_sink_accepts() -> None:
    slow = Slow()
    push = asyncio.create_task(PushMapObj(slow, str).next(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not push.done()
    slow.open.set()
    await push
    assert slow.accepted == ["1"]


async def test_push_after_end_returns_item() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushMapObj(sink, str)
    await pipeline.return_()
    item = object()
    for target in (pipeline, sink):
        with pytest.raises(ClosedError) as caught:
            await target.next(item)
        assert caught.value.item is item
        with pytest.raises(ClosedError):
            target.next_nowait(item)
    assert sink.buffer == []


async def test_return_and_throw_reach_the_sink_once() -> None:
    slow = Slow()
    pipeline = PushMapObj(PushFilterObj(slow, bool), str)
    await pipeline.return_("done")
    await pipeline.return_("again")
    assert slow.ended == ["done"]
    other = Slow()
    error = KeyError("x")
    await PushMapObj(other, str).throw(error)
    assert other.ended == [error]


async def test_law_2_cancelled_push_delivers_nothing() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    gate = asyncio.Event()

    async def wait(n: int) -> int:
        await gate.wait()
        return n

    pipeline = PushMapObj(sink, wait)
    push = asyncio.create_task(pipeline.next(1))
    await asyncio.sleep(0)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    gate.set()
    assert sink.buffer == []
    await pipeline.next(2)
    assert sink.buffer == [2]


async def test_law_3_callable_error_reaches_producer() -> None:
    error = ValueError("bad")
    sink: SinkCollectObj[int] = SinkCollectObj()

    def picky(n: int) -> int:
        if n == 1:
            raise error
        return n

    pipeline = PushMapObj(sink, picky)
    for n in range(3):
        with contextlib.suppress(ValueError):
            await pipeline.next(n)
    assert sink.buffer == [0, 2]
    assert error.__notes__ == ["raised by transform of PushMapObj: item 1"]


async def test_law_13_new_callable_applies_to_next_item() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushMapObj(sink, lambda n: n)
    await pipeline.next(1)
    pipeline.transform = str
    await pipeline.next(2)
    assert sink.buffer == [1, "2"]


async def test_law_16_ready_sink_yields_to_event_loop() -> None:
    async with Heart() as heart:
        sink: SinkCollectObj[int] = SinkCollectObj()
        for n in range(20_000):
            await sink.next(n)
    assert sink.buffer == list(range(20_000))
    assert heart.beats >= 20_000 // 4096


async def test_law_17_ten_thousand_stages_run_and_end() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline: Any = sink
    for _ in range(10_000):
        pipeline = PushMapObj[int, int](pipeline, lambda n: n + 1)
    await pipeline.next(0)
    await pipeline.return_()
    assert sink.buffer == [10_000]
    assert sink.closed


async def test_fork_delivers_concurrently() -> None:
    slow, fast = Slow(), SinkCollectObj[int]()
    fork = PushForkObj([slow, fast])
    push = asyncio.create_task(fork.next(1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert fast.buffer == [1]
    assert not push.done()
    slow.open.set()
    await push
    assert slow.accepted == [1]
    await fork.return_()
    assert fast.closed
    assert slow.ended == [None]


async def test_fork_delivers_to_others_when_one_fails() -> None:
    collected: SinkCollectObj[int] = SinkCollectObj()
    with pytest.raises(OSError, match="1"):
        await PushForkObj([Failing(), collected]).next(1)
    assert collected.buffer == [1]
    with pytest.raises(BaseExceptionGroup) as caught:
        await PushForkObj([Failing(), collected, Failing()], concurrent=False).next(2)
    assert [type(error) for error in caught.value.exceptions] == [OSError, OSError]
    assert collected.buffer == [1, 2]


async def test_fork_without_forward_close_keeps_sinks_open() -> None:
    shared: SinkCollectObj[int] = SinkCollectObj()
    await PushForkObj([shared], forward_close=False).return_()
    await shared.next(1)
    assert shared.buffer == [1]


async def test_done_sink_gets_no_more_items() -> None:
    class Two(SinkObj[int]):
        def __init__(self) -> None:
            super().__init__()
            self.items: list[int] = []

        async def next_impl(self, item: int) -> IteratorResult[None]:
            self.items.append(item)
            return IteratorResult(None, len(self.items) == 2)

    two, other = Two(), Two()
    fork = PushForkObj([two, other])
    assert [(await fork.next(n)).done for n in range(3)] == [False, True, True]
    assert two.items == other.items == [0, 1]


async def test_serial_keeps_order_of_concurrent_pushes() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()

    async def slower_when_early(n: int) -> int:
        for _ in range(10 - n):
            await asyncio.sleep(0)
        return n

    loose = PushMapObj(sink, slower_when_early)
    await asyncio.gather(*(loose.next(n) for n in range(8)))
    assert sink.buffer != list(range(8))
    sink.buffer.clear()
    serial = PushSerialObj(loose)
    await asyncio.gather(*(serial.next(n) for n in range(8)))
    assert sink.buffer == list(range(8))


async def test_serial_survives_cancelled_and_failed_pushes() -> None:
    slow = Slow()
    serial = PushSerialObj(slow)
    pushes = [asyncio.create_task(serial.next(n)) for n in range(4)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert slow.started == [0]
    pushes[1].cancel()
    pushes[0].cancel()
    slow.open.set()
    await asyncio.gather(*pushes, return_exceptions=True)
    assert slow.accepted == [2, 3]
    inverse = PushMapObj[int, int](SinkCollectObj[Any](), lambda n: 1 // n)
    failing = PushSerialObj(inverse)
    outcomes = await asyncio.gather(*(failing.next(n) for n in (0, 1)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, IteratorResult]


async def test_next_impl_subclass_works_in_pipeline() -> None:
    class Twice(PushObj1To1Link[int, int]):
        async def next_impl(self, item: int) -> None:
            await self.sink.next(item)
            await asyncio.sleep(0)
            await self.sink.next(item)

    sink: SinkCollectObj[str] = SinkCollectObj()
    pipeline = PushMapObj[int, int](Twice(PushMapObj(sink, str)), lambda n: n + 1)
    await pipeline.next(1)
    await pipeline.next(2)
    await pipeline.return_()
    assert sink.buffer == ["2", "2", "3", "3"]
    assert sink.closed


async def test_plain_object_with_protocol_is_a_sink() -> None:
    class Plain:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        async def next(self, item: Any) -> IteratorResult[Any]:
            self.calls.append(item)
            return IteratorResult("kept", len(self.calls) > 1)

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.calls.append(("return", value))
            return IteratorResult(value, True)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            raise error

    plain = Plain()
    pipeline = PushMapObj(plain, str)
    assert await pipeline.next(1) == IteratorResult("kept", False)
    assert await pipeline.next(2) == IteratorResult("kept", True)
    await pipeline.return_(3)
    assert plain.calls == ["1", "2", ("return", 3)]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: PushMapObj(SinkCollectObj[Any](), wrong(3)),
            TypeError,
            r"transform must be callable, got 3 \(int\)",
        ),
        (
            lambda: PushMapObj(wrong(3), str),
            TypeError,
            r"sink must be a push object, got 3 \(int\)",
        ),
        (lambda: PushForkObj[Any]([]), ValueError, "at least one push object"),
        (
            lambda: PushForkObj(wrong(3)),
            TypeError,
            r"sinks must be an iterable of push objects, got 3 \(int\)",
        ),
        (
            lambda: PushForkObj([SinkCollectObj[Any](), wrong(3)]),
            TypeError,
            r"sinks\[1\] must be a push object, got 3",
        ),
        (
            lambda: PushDistributeObj([SinkCollectObj[Any]()], wrong(3)),
            TypeError,
            r"selector must be callable, got 3",
        ),
    ],
)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (2, IndexError, r"a number from 0 to 1, got 2 \(int\) for 1 \(int\)"),
        (-1, IndexError, r"a number from 0 to 1, got -1 \(int\) for 1 \(int\)"),
        (2**200, IndexError, rf"a number from 0 to 1, got {2**200} \(int\) for 1 \(int\)"),
        (True, TypeError, r"the number of a sink, got True \(bool\) for 1 \(int\)"),
        ("0", TypeError, r"the number of a sink, got '0' \(str\) for 1 \(int\)"),
        (None, TypeError, r"the number of a sink, got None \(NoneType\) for 1 \(int\)"),
    ],
)
async def test_selector_returning_no_sink_number_raises(
    answer: Any, kind: type[Exception], message: str, is_async: bool
) -> None:
    async def later(_: int) -> Any:
        return answer

    sinks: list[SinkCollectObj[int]] = [SinkCollectObj(), SinkCollectObj()]
    pipeline = PushDistributeObj(sinks, later if is_async else lambda _: answer)
    with pytest.raises(kind, match=f"selector must give {message}"):
        await pipeline.next(1)
    # The item was not accepted, and the pipeline remains usable.
    assert [sink.buffer for sink in sinks] == [[], []]
    pipeline.selector = lambda _: 1
    await pipeline.next(1)
    assert [sink.buffer for sink in sinks] == [[], [1]]


async def test_leaving_block_ends_or_throws() -> None:
    slow = Slow()
    async with slow:
        pass
    assert slow.ended == [None]
    other = Slow()
    error = KeyError("x")
    with pytest.raises(KeyError):
        async with other:
            raise error
    assert other.ended == [error]


async def test_accumulate_pushes_each_running_result() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushReduceObj[int, int](sink, operator.add, 10)
    for n in (1, 2, 3):
        await pipeline.next(n)
    assert sink.buffer == [11, 13, 16]
    pipeline.accumulator = 0
    pipeline.reducer = operator.sub
    await pipeline.next(5)
    assert (sink.buffer[-1], pipeline.accumulator) == (-5, -5)
    with pytest.raises(TypeError, match=r"reducer must be callable, got None"):
        PushReduceObj(sink, wrong(None))


async def test_law_2_cancelled_accumulate_keeps_state() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    gate = asyncio.Event()

    async def add(left: int, right: int) -> int:
        await gate.wait()
        return left + right

    pipeline = PushReduceObj[int, int](sink, add, 10)
    push = asyncio.ensure_future(pipeline.next(1))
    await asyncio.sleep(0)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    gate.set()
    await pipeline.next(2)
    assert sink.buffer == [12]


async def test_dedupe_pushes_each_key_once() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushDedupeObj(sink, key=lambda n: n % 3)
    for n in (3, 1, 6, 4, 5):
        await pipeline.next(n)
    assert sink.buffer == [3, 1, 5]


async def test_law_2_dedupe_forgets_cancelled_item() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    gate = asyncio.Event()

    async def key(n: int) -> int:
        await gate.wait()
        return n

    pipeline = PushDedupeObj(sink, key=key)
    push = asyncio.ensure_future(pipeline.next(1))
    await asyncio.sleep(0)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    gate.set()
    await pipeline.next(1)
    await pipeline.next(1)
    assert sink.buffer == [1]
