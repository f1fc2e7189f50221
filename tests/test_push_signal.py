"""`PushSignalObj` and `PullGateObj`: what a push line says, and what a pull line waits for; `PushBufferObj`."""

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
from tests.support import Gate, collect, turns, wrong

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


class Heard(WaitObject[Any]):
    """A signal that notes its values."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def resolve(self, value: Any = None) -> None:
        self.values.append(value)
        super().resolve(value)


class Always(WaitObject[Any]):
    """A signal that is there whenever it is waited for."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


class Picky(SinkObj[Any]):
    """Fails for odd items."""

    async def next_impl(self, item: Any) -> None:
        if item % 2:
            raise ValueError(item)


def a_pull(stream: Any) -> asyncio.Task[Any]:
    async def pull() -> Any:
        return await anext(stream)

    return asyncio.create_task(pull())


def ways_to_push(line: PushObj[Any]) -> list[Callable[[Any], Awaitable[Any]]]:
    async def nowait(item: Any) -> Any:
        return line.next_nowait(item)

    return [line.next, nowait]


async def test_the_signal_is_told_after_the_delivery() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    heard = Heard()
    line = PushSignalObj(buffer.sink, heard)
    await line.next(1)
    push = asyncio.ensure_future(line.next(2))
    await turns(3)
    assert heard.values == [1]
    assert await anext(buffer.source) == 1
    await push
    assert heard.values == [1, 2]
    with pytest.raises(WouldBlock):
        line.next_nowait(3)
    assert heard.values == [1, 2]
    assert await anext(buffer.source) == 2
    line.next_nowait(3)
    assert heard.values == [1, 2, 3]


async def test_the_signal_is_told_before_the_delivery() -> None:
    heard = Heard()
    line = PushSignalObj[Any](Picky(), heard, when="before")
    await line.next(2)
    with pytest.raises(ValueError, match="3"):
        await line.next(3)
    assert heard.values == [2, 3]
    line.when = "after"
    with pytest.raises(ValueError, match="5"):
        await line.next(5)
    assert heard.values == [2, 3]


async def test_law_13_the_signal_is_live() -> None:
    first, second = Heard(), Heard()
    line = PushChain.start(int).signal(first).into(SinkNullObj())
    assert isinstance(line, PushSignalObj)
    assert line.wait_obj is first
    await line.next(1)
    line.wait_obj = second
    await line.next(2)
    assert (first.values, second.values) == ([1], [2])
    with pytest.raises(TypeError, match=r"wait_obj must be a WaitObject, got 3 \(int\)"):
        line.wait_obj = wrong(3)


async def test_an_error_of_the_signal_says_that_the_item_was_delivered() -> None:
    class Broken(WaitObject[Any]):
        def resolve(self, value: Any = None) -> None:
            raise ForkError("not here")

    sink: SinkCollectObj[int] = SinkCollectObj()
    line = PushSignalObj(sink, Broken())
    for push in ways_to_push(line):
        with pytest.raises(ForkError) as caught:
            await push(1)
        assert vars(caught.value)["accepted_by"] == (sink,)
    assert sink.buffer == [1, 1]


async def test_the_end_ends_the_sink_and_leaves_the_signal() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    heard = Heard()
    line = PushSignalObj(sink, heard)
    await line.return_()
    assert sink.closed
    assert not heard.stopped
    for push in ways_to_push(line):
        with pytest.raises(ClosedError) as caught:
            await push(1)
        assert caught.value.item == 1
    assert heard.values == []


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


async def test_the_gate_lets_what_is_ready_through_at_each_signal() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[None] = WaitObject()
    stream = buffer.source.gate(signal)
    for n in range(3):
        buffer.sink.next_nowait(n)
    pull = a_pull(stream)
    await turns(3)
    assert not pull.done()
    assert len(buffer) == 3
    signal.resolve()
    assert [await pull, await anext(stream), await anext(stream)] == [0, 1, 2]
    # Nothing is ready: from here on it is closed.
    pull = a_pull(stream)
    await turns(3)
    buffer.sink.next_nowait(3)
    buffer.sink.next_nowait(4)
    await turns(3)
    assert not pull.done()
    # The one that was being pulled is here, and no other one.
    assert len(buffer) == 1
    signal.resolve()
    assert [await pull, await anext(stream)] == [3, 4]
    await buffer.sink.return_()
    assert await collect(stream) == []
    await stream.aclose()


async def test_law_1_nothing_is_pulled_while_the_gate_is_closed() -> None:
    source = ScriptedSource([1, 2, Forever()])
    signal: WaitObject[None] = WaitObject()
    stream = PullGateObj(source, signal)
    pull = a_pull(stream)
    await turns(3)
    assert (source.opens, source.pulls) == (0, 0)
    signal.resolve()
    assert await pull == 1
    assert source.pulls == 1
    assert await anext(stream) == 2
    pull = a_pull(stream)
    await turns(3)
    await stream.aclose()
    with pytest.raises(ClosedError):
        await pull


async def test_a_turn_of_the_loop_does_not_close_the_gate() -> None:
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    stream = PullGateObj(ScriptedSource([Yields(3), 1, Yields(1), 2, Yields(2)]), signal)
    assert await collect(stream) == [1, 2]


async def test_a_signal_that_came_while_it_was_open_counts_once() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[None] = WaitObject()
    stream = buffer.source.gate(signal)
    buffer.sink.next_nowait(1)
    signal.resolve()
    assert await anext(stream) == 1
    signal.resolve()
    signal.resolve()
    pull = a_pull(stream)
    await turns(3)
    buffer.sink.next_nowait(2)
    assert await pull == 2
    pull = a_pull(stream)
    await turns(3)
    buffer.sink.next_nowait(3)
    await turns(3)
    assert not pull.done()
    signal.resolve()
    assert await pull == 3
    await stream.aclose()


async def test_a_rejected_signal_raises_until_it_is_reset() -> None:
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
    # The same with an item that waits.
    pull = a_pull(stream)
    await turns(3)
    buffer.sink.next_nowait(2)
    await turns(3)
    signal.reject(ClosedError("by the user"))
    with pytest.raises(ClosedError, match="by the user"):
        await pull
    signal.reset()
    signal.resolve()
    assert await anext(stream) == 2
    await stream.aclose()


async def test_a_stopped_signal_leaves_the_gate_open() -> None:
    signal: WaitObject[None] = WaitObject()
    source = ScriptedSource([1, Yields(2), 2])
    stream = PullGateObj(source, signal).map(str)
    pull = a_pull(stream)
    await turns(3)
    signal.stop()
    assert await pull == "1"
    assert await collect(stream) == ["2"]


async def test_law_13_the_signal_of_a_gate_is_live() -> None:
    first, second = WaitObject[None](), WaitObject[None]()
    stream = SourceIterObj([1]).gate(first)
    stream.wait_obj = second
    assert stream.wait_obj is second
    second.resolve()
    assert await anext(stream) == 1
    with pytest.raises(TypeError, match=r"wait_obj must be .*got 3 \(int\)"):
        stream.wait_obj = wrong(3)


async def test_law_3_an_error_of_the_source_is_not_held_back() -> None:
    error = ValueError("x")
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    source = ScriptedSource([Raise(error), 1])
    stream = PullGateObj(source, signal)
    with pytest.raises(ValueError, match="x"):
        await anext(stream)
    assert await collect(stream) == [1]


async def test_law_11_a_restart_closes_the_gate() -> None:
    signal: WaitObject[None] = WaitObject()
    signal.resolve()
    stream = SourceIterObj([1, 2]).gate(signal)
    assert await anext(stream) == 1
    stream.restart()
    pull = a_pull(stream)
    await turns(3)
    assert not pull.done()
    signal.resolve()
    assert await pull == 1
    assert await collect(stream) == [2]


@pytest.mark.virtual
async def test_law_2_a_gate_cancelled_anywhere_loses_nothing() -> None:
    script = [1, Delay(1), 2, 3, Yields(2), 4, Delay(1), Yields(1), 5]

    class Ticks(WaitObject[Any]):
        """Comes a moment after it is waited for."""

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


async def test_law_4_a_gate_that_waits_for_its_signal_closes() -> None:
    source = ScriptedSource([1, 2], closing=1)
    signal: WaitObject[None] = WaitObject()
    stream = PullGateObj(source, signal).map(str)
    pulls = [a_pull(stream) for _ in range(2)]
    await turns(3)
    await stream.aclose()
    for pull in pulls:
        with pytest.raises(ClosedError):
            await pull
    assert (source.opens, signal.waiting) == (0, 0)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_law_12_pulls_of_a_gate_are_served_in_turn() -> None:
    signal: WaitObject[None] = WaitObject()
    stream = SourceIterObj(range(4)).gate(signal)
    pulls = [a_pull(stream) for _ in range(4)]
    await turns(2)
    pulls[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pulls[1]
    signal.resolve()
    assert [await pulls[0], await pulls[2], await pulls[3], await anext(stream)] == [0, 1, 2, 3]


# Buffer


async def test_the_lists_are_those_that_the_condition_parts() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    items = [dice.randrange(10) for _ in range(100)]
    expected: list[list[int]] = [[]]
    for item in items:
        expected[-1].append(item)
        if item > 6:
            expected.append([])
    rest = expected.pop()

    async def above(items: list[int]) -> bool:
        await turns(dice.randrange(2))
        return items[-1] > 6

    for condition in (lambda items: items[-1] > 6, above):
        for keeps in (True, False):
            sink: SinkCollectObj[list[int]] = SinkCollectObj()
            line = (
                PushChain.start(int)
                .map(int)
                .batch_until(condition, partial="keep" if keeps else "drop")
                .into(PushMapObj(sink, list))
            )
            for item in items:
                await line.next(item)
            assert sink.buffer == expected
            await line.return_()
            assert sink.buffer == expected + ([rest] if rest and keeps else [])
            assert sink.closed


async def test_law_3_an_error_of_the_condition_costs_its_item() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    line = PushBufferObj[int](sink, lambda items: 12 % items[-1] == 5)
    await line.next(7)
    with pytest.raises(ZeroDivisionError) as caught:
        await line.next(0)
    assert caught.value.__notes__ == ["raised by condition of PushBufferObj"]
    await line.next(1)
    await line.next(7)
    await line.return_()
    assert sink.buffer == [[7], [1, 7]]


async def test_law_13_the_condition_is_live_and_throw_drops_the_list() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    line = PushBufferObj[int](sink, lambda _: False)
    await line.next(1)
    line.condition = lambda items: items[-1] == 2
    await line.next(2)
    assert sink.buffer == [[1, 2]]
    await line.next(3)
    await line.throw(KeyError("x"))
    assert sink.buffer == [[1, 2]]
    with pytest.raises(TypeError, match="condition must be"):
        line.condition = wrong(3)


async def test_nowait_does_not_wait_for_a_condition() -> None:
    gate = Gate()
    line = PushBufferObj(SinkNullObj[Any](), gate)
    with pytest.raises(WouldBlock) as caught:
        line.next_nowait(1)
    assert caught.value.item == 1
    line.condition = lambda _: True
    line.next_nowait(1)
