"""`PushSignalObj`, which resolves a signal at each item; `PullGateObj`, which waits for one; and `PushBufferObj`."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    ForkError,
    PullGateObj,
    PushBufferObj,
    PushChain,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushSignalObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    SourceIterObj,
    WaitObject,
    WouldBlock,
)
from headrace.testing import Delay, Forever, Raise, ScriptedSource, Yields, sweep, sweep_endings
from tests.support import Gate, collect, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


class Recorded(WaitObject[Any]):
    """A signal that records its values."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def resolve(self, value: Any = None) -> None:
        self.values.append(value)
        super().resolve(value)


class Always(WaitObject[Any]):
    """A signal that is resolved whenever it is awaited."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


class Picky(SinkObj[Any]):
    """Fails for odd items."""

    async def next_impl(self, item: Any) -> None:
        if item % 2:
            raise ValueError(item)


def start_pull(stream: Any) -> asyncio.Task[Any]:
    async def pull() -> Any:
        return await anext(stream)

    return asyncio.create_task(pull())


def ways_to_push(pipeline: PushObj[Any]) -> list[Callable[[Any], Awaitable[Any]]]:
    async def nowait(item: Any) -> Any:
        return pipeline.next_nowait(item)

    return [pipeline.next, nowait]


async def test_signal_resolves_after_delivery() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    recorded = Recorded()
    pipeline = PushSignalObj(buffer.sink, recorded)
    await pipeline.next(1)
    push = asyncio.ensure_future(pipeline.next(2))
    await yield_to_loop(3)
    assert recorded.values == [1]
    assert await anext(buffer.source) == 1
    await push
    assert recorded.values == [1, 2]
    with pytest.raises(WouldBlock):
        pipeline.next_nowait(3)
    assert recorded.values == [1, 2]
    assert await anext(buffer.source) == 2
    pipeline.next_nowait(3)
    assert recorded.values == [1, 2, 3]


async def test_signal_resolves_before_delivery() -> None:
    recorded = Recorded()
    pipeline = PushSignalObj[Any](Picky(), recorded, when="before")
    await pipeline.next(2)
    with pytest.raises(ValueError, match="3"):
        await pipeline.next(3)
    assert recorded.values == [2, 3]
    pipeline.when = "after"
    with pytest.raises(ValueError, match="5"):
        await pipeline.next(5)
    assert recorded.values == [2, 3]


async def test_law_13_push_signal_is_live() -> None:
    first, second = Recorded(), Recorded()
    pipeline = PushChain.start(int).signal(first).into(SinkNullObj())
    assert isinstance(pipeline, PushSignalObj)
    assert pipeline.wait_obj is first
    await pipeline.next(1)
    pipeline.wait_obj = second
    await pipeline.next(2)
    assert (first.values, second.values) == ([1], [2])
    with pytest.raises(TypeError, match=r"wait_obj must be a WaitObject, got 3 \(int\)"):
        pipeline.wait_obj = wrong(3)


async def test_signal_error_names_sink_that_accepted() -> None:
    class Broken(WaitObject[Any]):
        def resolve(self, value: Any = None) -> None:
            raise ForkError("not here")

    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushSignalObj(sink, Broken())
    for push in ways_to_push(pipeline):
        with pytest.raises(ForkError) as caught:
            await push(1)
        assert vars(caught.value)["accepted_by"] == (sink,)
    assert sink.buffer == [1, 1]


async def test_end_closes_sink_and_leaves_signal() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    recorded = Recorded()
    pipeline = PushSignalObj(sink, recorded)
    await pipeline.return_()
    assert sink.closed
    assert not recorded.stopped
    for push in ways_to_push(pipeline):
        with pytest.raises(ClosedError) as caught:
            await push(1)
        assert caught.value.item == 1
    assert recorded.values == []


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: PushSignalObj(wrong(1), WaitObject()),
        TypeError,
        r"sink must be a push object, got 1 \(int\)",
    ),
    (
        lambda: PushSignalObj(SinkNullObj(), wrong("x")),
        TypeError,
        r"wait_obj must be a WaitObject, got 'x' \(str\)",
    ),
    (
        lambda: PushSignalObj(SinkNullObj(), WaitObject(), when=wrong("now")),
        ValueError,
        'when must be "after" or "before", got \'now\'',
    ),
    (lambda: PullGateObj(wrong(1), WaitObject()), TypeError, r"source must be .*got 1 \(int\)"),
    (
        lambda: SourceIterObj([1]).gate(wrong(None)),
        TypeError,
        r"wait_obj must be a WaitObject, got None \(NoneType\)",
    ),
    (
        lambda: PushBufferObj(SinkNullObj[Any](), wrong(3)),
        TypeError,
        r"condition must be .*got 3 \(int\)",
    ),
    (
        lambda: PushBufferObj(SinkNullObj[Any](), bool, partial=wrong("x")),
        ValueError,
        'partial must be "keep" or "drop", got \'x\'',
    ),
    (
        lambda: PushBufferObj(wrong(3), bool),
        TypeError,
        r"sink must be a push object, got 3 \(int\)",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


# Gate


async def test_gate_passes_ready_items_at_each_signal() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[None] = WaitObject()
    stream = buffer.source.gate(signal)
    for n in range(3):
        buffer.sink.next_nowait(n)
    pull = start_pull(stream)
    await yield_to_loop(3)
    assert not pull.done()
    assert len(buffer) == 3
    signal.resolve()
    assert [await pull, await anext(stream), await anext(stream)] == [0, 1, 2]
    # No item is ready, so the gate closes.
    pull = start_pull(stream)
    await yield_to_loop(3)
    buffer.sink.next_nowait(3)
    buffer.sink.next_nowait(4)
    await yield_to_loop(3)
    assert not pull.done()
    # The item that was being pulled has left the buffer, and no other.
    assert len(buffer) == 1
    signal.resolve()
    assert [await pull, await anext(stream)] == [3, 4]
    await buffer.sink.return_()
    assert await collect(stream) == []
    await stream.aclose()


async def test_law_1_closed_gate_pulls_nothing() -> None:
    source = ScriptedSource([1, 2, Forever()])
    signal: WaitObject[None] = WaitObject()
    stream = PullGateObj(source, signal)
    pull = start_pull(stream)
    await yield_to_loop(3)
    assert (source.opens, source.pulls) == (0, 0)
    signal.resolve()
    assert await pull == 1
    assert source.pulls == 1
    assert await anext(stream) == 2
    pull = start_pull(stream)
    await yield_to_loop(3)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull


async def test_loop_iteration_does_not_close_gate() -> None:
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    stream = PullGateObj(ScriptedSource([Yields(3), 1, Yields(1), 2, Yields(2)]), signal)
    assert await collect(stream) == [1, 2]


async def test_signal_during_open_gate_counts_once() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[None] = WaitObject()
    stream = buffer.source.gate(signal)
    buffer.sink.next_nowait(1)
    signal.resolve()
    assert await anext(stream) == 1
    signal.resolve()
    signal.resolve()
    pull = start_pull(stream)
    await yield_to_loop(3)
    buffer.sink.next_nowait(2)
    assert await pull == 2
    pull = start_pull(stream)
    await yield_to_loop(3)
    buffer.sink.next_nowait(3)
    await yield_to_loop(3)
    assert not pull.done()
    signal.resolve()
    assert await pull == 3
    await stream.aclose()


async def test_rejected_signal_raises_until_reset() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[None] = WaitObject()
    stream = buffer.source.gate(signal)
    error = KeyError("x")
    signal.reject(error)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            await anext(stream)
        assert caught.value is error
    signal.reset()
    signal.resolve()
    buffer.sink.next_nowait(1)
    assert await anext(stream) == 1
    # The same with an item that is held by the gate.
    pull = start_pull(stream)
    await yield_to_loop(3)
    buffer.sink.next_nowait(2)
    await yield_to_loop(3)
    signal.reject(ClosedError("by the user"))
    with pytest.raises(ClosedError, match="by the user"):
        await pull
    signal.reset()
    signal.resolve()
    assert await anext(stream) == 2
    await stream.aclose()


async def test_stopped_signal_leaves_gate_open() -> None:
    signal: WaitObject[None] = WaitObject()
    source = ScriptedSource([1, Yields(2), 2])
    stream = PullGateObj(source, signal).map(str)
    pull = start_pull(stream)
    await yield_to_loop(3)
    signal.stop()
    assert await pull == "1"
    assert await collect(stream) == ["2"]


async def test_law_13_gate_signal_is_live() -> None:
    first, second = WaitObject[None](), WaitObject[None]()
    stream = SourceIterObj([1]).gate(first)
    stream.wait_obj = second
    assert stream.wait_obj is second
    second.resolve()
    assert await anext(stream) == 1
    with pytest.raises(TypeError, match=r"wait_obj must be .*got 3 \(int\)"):
        stream.wait_obj = wrong(3)


async def test_law_3_source_error_passes_the_gate() -> None:
    error = ValueError("x")
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    source = ScriptedSource([Raise(error), 1])
    stream = PullGateObj(source, signal)
    with pytest.raises(ValueError, match="x"):
        await anext(stream)
    assert await collect(stream) == [1]


async def test_law_11_restart_closes_gate() -> None:
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    stream = SourceIterObj([1, 2]).gate(signal)
    assert await anext(stream) == 1
    stream.restart()
    pull = start_pull(stream)
    await yield_to_loop(3)
    assert not pull.done()
    signal.resolve()
    assert await pull == 1
    assert await collect(stream) == [2]


@pytest.mark.virtual
async def test_law_2_cancelled_gate_loses_nothing() -> None:
    script = [1, Delay(1), 2, 3, Yields(2), 4, Delay(1), Yields(1), 5]

    class Ticks(WaitObject[Any]):
        """Is resolved half a second after a wait begins."""

        def wait(self) -> Coroutine[Any, Any, Any]:
            asyncio.get_running_loop().call_later(0.5, self.resolve)
            return super().wait()

    for make in (Always, Ticks):
        tried = await sweep(
            lambda make=make: PullGateObj(ScriptedSource(script, closing=1), make()),  # type: ignore[misc]
            [1, 2, 3, 4, 5],
        )
        assert tried > 20
        assert await sweep_endings(
            lambda make=make: PullGateObj(ScriptedSource(script, closing=1), make())  # type: ignore[misc]
        )


async def test_law_4_gate_waiting_for_signal_can_close() -> None:
    source = ScriptedSource([1, 2], closing=1)
    signal: WaitObject[None] = WaitObject()
    stream = PullGateObj(source, signal).map(str)
    pulls = [start_pull(stream) for _ in range(2)]
    await yield_to_loop(3)
    await stream.aclose()
    for pull in pulls:
        with pytest.raises(ClosedError):
            await pull
    assert (source.opens, signal.waiting) == (0, 0)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_12_gate_serves_pulls_in_fifo_order() -> None:
    signal: WaitObject[None] = WaitObject()
    stream = SourceIterObj(range(4)).gate(signal)
    pulls = [start_pull(stream) for _ in range(4)]
    await yield_to_loop(2)
    pulls[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pulls[1]
    signal.resolve()
    assert [await pulls[0], await pulls[2], await pulls[3], await anext(stream)] == [0, 1, 2, 3]


# Buffer


async def test_batch_until_splits_at_condition() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    items = [rng.randrange(10) for _ in range(100)]
    expected: list[list[int]] = [[]]
    for item in items:
        expected[-1].append(item)
        if item > 6:
            expected.append([])
    rest = expected.pop()

    async def is_above(items: list[int]) -> bool:
        await yield_to_loop(rng.randrange(2))
        return items[-1] > 6

    for condition in (lambda items: items[-1] > 6, is_above):
        for keeps in (True, False):
            sink: SinkCollectObj[list[int]] = SinkCollectObj()
            pipeline = (
                PushChain.start(int)
                .map(int)
                .batch_until(condition, partial="keep" if keeps else "drop")
                .into(PushMapObj(sink, list))
            )
            for item in items:
                await pipeline.next(item)
            assert sink.buffer == expected
            await pipeline.return_()
            assert sink.buffer == expected + ([rest] if rest and keeps else [])
            assert sink.closed


async def test_law_3_condition_error_costs_one_item() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    pipeline = PushBufferObj[int](sink, lambda items: 12 % items[-1] == 5)
    await pipeline.next(7)
    with pytest.raises(ZeroDivisionError) as caught:
        await pipeline.next(0)
    assert caught.value.__notes__ == ["raised by condition of PushBufferObj: item 0"]
    await pipeline.next(1)
    await pipeline.next(7)
    await pipeline.return_()
    assert sink.buffer == [[7], [1, 7]]


async def test_law_13_condition_is_live_and_throw_drops_list() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    pipeline = PushBufferObj[int](sink, lambda _: False)
    await pipeline.next(1)
    pipeline.condition = lambda items: items[-1] == 2
    await pipeline.next(2)
    assert sink.buffer == [[1, 2]]
    await pipeline.next(3)
    await pipeline.throw(KeyError("x"))
    assert sink.buffer == [[1, 2]]
    with pytest.raises(TypeError, match="condition must be"):
        pipeline.condition = wrong(3)


async def test_nowait_does_not_wait_for_condition() -> None:
    gate = Gate()
    pipeline = PushBufferObj(SinkNullObj[Any](), gate)
    with pytest.raises(WouldBlock) as caught:
        pipeline.next_nowait(1)
    assert caught.value.item == 1
    pipeline.condition = lambda _: True
    pipeline.next_nowait(1)
