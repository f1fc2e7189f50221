"""`PushPullObj`, `PullPushBridgeObj` and `PullPushDistributeObj`, which connect push and pull."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PushChain,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    PushPullObj,
    PushTakeObj,
    PushWindowObj,
    SinkCallbackObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    SourceIterObj,
    WouldBlock,
)
from headrace.testing import ScriptedSource, Yields, sweep, sweep_endings
from tests.support import Gate, collect, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable


class Slow(SinkObj[Any]):
    """A sink that needs two loop iterations to accept an item and one to end, and fails for the given items."""

    def __init__(self, *bad: Any, ending: Exception | None = None) -> None:
        super().__init__()
        self.bad = bad
        self.ending = ending
        self.items: list[Any] = []
        self.ends: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await yield_to_loop(2)
        if item in self.bad:
            raise OSError(item)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        await yield_to_loop(1)
        self.ends.append(value)
        if self.ending is not None:
            raise self.ending


async def slowly(item: Any) -> Any:
    await yield_to_loop(1)
    return item


# PushPullObj


async def test_pair_is_a_sink_and_a_source() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    chain = PushChain.start(str).map(int).into(buffer.sink)
    both = PushPullObj(chain, buffer.source.map(lambda n: n * 10))
    assert both.sink is chain
    assert aiter(both) is both.source
    assert await both.next("1") == IteratorResult(None, False)
    both.next_nowait("2")
    with pytest.raises(WouldBlock):
        both.next_nowait("3")
    assert await anext(both.source) == 10
    assert await both.return_("end") == IteratorResult("end", True)
    assert [item async for item in both] == [20]
    with pytest.raises(ClosedError):
        await both.next("4")


async def test_pair_is_accepted_as_sink_and_as_source() -> None:
    first, second = PushPullBufferObj[int](), PushPullBufferObj[int]()
    pair = PushPullObj(first.sink, first.source)
    fork: PushForkObj[int] = PushForkObj([pair, second.sink])
    await fork.next(1)
    await SourceIterObj([2, 3]).drain_to(pair)
    assert await collect(SourceIterObj(pair).map(str)) == ["1", "2", "3"]
    assert await anext(second.source) == 1


async def test_error_pushed_into_a_pair_reaches_its_source() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    both = PushPullObj(buffer.sink, buffer.source)
    await both.next(1)
    await both.throw(KeyError("x"))
    assert await anext(both.source) == 1
    with pytest.raises(KeyError):
        await anext(both.source)


# PullPushBridgeObj and PullPushDistributeObj


async def test_every_sink_receives_each_pulled_item() -> None:
    first, second = SinkCollectObj[int](), SinkCollectObj[int]()
    stream = PullPushBridgeObj(SourceIterObj(range(4)), first, second)
    assert await anext(stream) == 0
    assert (first.buffer, second.buffer) == ([0], [0])
    assert await collect(stream.map(str)) == ["1", "2", "3"]
    assert first.buffer == second.buffer == [0, 1, 2, 3]
    assert first.closed
    assert second.closed
    assert list(stream.sinks) == [first, second]


async def test_law_1_sink_receives_nothing_before_a_pull() -> None:
    source = ScriptedSource([1, 2])
    sink: SinkCollectObj[int] = SinkCollectObj()
    stream = PullPushBridgeObj(source, sink)
    await yield_to_loop(3)
    assert (source.pulls, sink.buffer) == (0, [])
    assert await anext(stream) == 1
    assert (source.pulls, sink.buffer) == (1, [1])
    await stream.aclose()
    assert sink.closed


async def test_pull_returns_after_all_sinks_accepted() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    stream = PullPushBridgeObj([1, 2], buffer.sink)
    assert await anext(stream) == 1
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    assert not pull.done()
    assert await anext(buffer.source) == 1
    assert await pull == 2
    await stream.aclose()


SCRIPT = [1, Yields(1), 2, 3, Yields(2), 4]


async def test_law_2_cancelled_pulls_deliver_once_to_each_sink() -> None:
    made: list[list[Slow]] = []

    def bridge() -> Any:
        ends = [Slow(), Slow(), Slow()]
        made.append(ends)
        return PullPushBridgeObj(
            ScriptedSource(SCRIPT, closing=1),
            ends[0],
            PushMapObj(ends[1], slowly),
            PushWindowObj(ends[2], 2),
        )

    def distribute() -> Any:
        ends = [Slow(), Slow()]
        made.append(ends)
        return PullPushDistributeObj(
            ScriptedSource(SCRIPT, closing=1), ends, lambda n: slowly(n % 2)
        )

    assert await sweep(bridge, [1, 2, 3, 4]) > 50
    for ends in made:
        assert [end.items for end in ends] == [[1, 2, 3, 4], [1, 2, 3, 4], [[1, 2], [3, 4]]]
        assert [end.ends for end in ends] == [[None]] * 3
    made.clear()
    assert await sweep(distribute, [1, 2, 3, 4]) > 50
    for ends in made:
        assert [end.items for end in ends] == [[2, 4], [1, 3]]
    assert await sweep_endings(bridge) > 20
    assert await sweep_endings(distribute) > 20


async def test_law_2_error_before_a_cancel_is_raised_next() -> None:
    gate = Gate()
    failing = Slow(1)
    stream = PullPushBridgeObj([1, 2], failing, SinkCallbackObj(gate))
    pull = asyncio.ensure_future(anext(stream))
    await until(lambda: gate.calls)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    gate.open.set()
    with pytest.raises(OSError, match="1"):
        await anext(stream)
    assert gate.calls == [1, 1]
    assert await anext(stream) == 2
    assert failing.items == [2]
    await stream.aclose()


async def test_law_3_sink_error_costs_one_item_of_that_sink() -> None:
    failing, other, third = Slow(2, 3), SinkCollectObj[int](), Slow(3)
    stream = PullPushBridgeObj(range(1, 5), failing, other, third)
    assert await anext(stream) == 1
    with pytest.raises(OSError, match="2") as caught:
        await anext(stream)
    assert vars(caught.value)["accepted_by"] == (other, third)
    with pytest.raises(ExceptionGroup, match="several sinks failed") as group:
        await anext(stream)
    assert [str(error) for error in group.value.exceptions] == ["3", "3"]
    assert vars(group.value)["accepted_by"] == (other,)
    assert await collect(stream) == [4]
    assert (failing.items, other.buffer, third.items) == ([1, 4], [1, 2, 3, 4], [1, 2, 4])


@pytest.mark.parametrize("kind", [StopAsyncIteration, asyncio.CancelledError, ValueError])
async def test_law_3_sink_or_selector_error_keeps_stream_open(
    kind: type[BaseException],
) -> None:
    async def refuse(item: int) -> int:
        if item == 1:
            raise kind
        return 0

    expected = RuntimeError if kind is StopAsyncIteration else kind
    for stream in (
        PullPushBridgeObj([1, 2], SinkCallbackObj(refuse)),
        PullPushDistributeObj([1, 2], [SinkNullObj()], refuse),
    ):
        with pytest.raises(expected):
            await anext(stream)
        assert await collect(stream) == [2]


async def test_law_3_iteration_error_of_selector_is_wrapped() -> None:
    for kind in (StopIteration, StopAsyncIteration, GeneratorExit):

        def refuse(item: int, kind: type[BaseException] = kind) -> int:
            if item == 1:
                raise kind
            return 0

        stream = PullPushDistributeObj([1, 2], [SinkNullObj()], refuse)
        with pytest.raises(RuntimeError, match=f"selector of PullPush.* raised {kind.__name__}"):
            await anext(stream)
        assert await collect(stream) == [2]


async def test_selector_returns_the_index_of_a_sink() -> None:
    sinks = [SinkCollectObj[int](), SinkCollectObj[int]()]
    stream = PullPushDistributeObj(range(5), sinks, lambda n: n % 2)
    assert await anext(stream) == 0
    stream.selector = lambda n: {1: wrong("x"), 2: -1, 3: wrong(True), 4: 1}[n]
    with pytest.raises(TypeError, match=r"number of a sink, got 'x' \(str\) for 1 \(int\)"):
        await anext(stream)
    with pytest.raises(IndexError, match=r"from 0 to 1, got -1 \(int\) for 2 \(int\)"):
        await anext(stream)
    with pytest.raises(TypeError, match=r"got True \(bool\) for 3 \(int\)"):
        await anext(stream)
    assert await collect(stream) == [4]
    assert [sink.buffer for sink in sinks] == [[0], [4]]
    assert all(sink.closed for sink in sinks)
    with pytest.raises(TypeError, match=r"selector must be callable, got 3 \(int\)"):
        stream.selector = wrong(3)


async def test_finished_sink_receives_no_more_items() -> None:
    first, second = SinkCollectObj[int](), SinkCollectObj[int]()
    assert await collect(PullPushBridgeObj(range(4), PushTakeObj(first, 2), second)) == [0, 1, 2, 3]
    assert (first.buffer, second.buffer) == ([0, 1], [0, 1, 2, 3])


async def test_finished_sink_is_not_called_again() -> None:
    class Done(SinkObj[int]):
        async def next_impl(self, item: int) -> IteratorResult[Any]:
            received.append(item)
            return IteratorResult(None, True)

    received: list[int] = []
    assert await collect(PullPushBridgeObj(range(3), Done())) == [0, 1, 2]
    assert await collect(PullPushDistributeObj(range(5, 8), [Done()], lambda _: 0)) == [5, 6, 7]
    assert received == [0, 5]


async def test_shared_sinks_stay_open() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    for stream in (
        PullPushBridgeObj([1], sink, forward_close=False),
        PullPushDistributeObj([2], [sink, sink], lambda _: 1, forward_close=False),
    ):
        await collect(stream)
        await stream.aclose()
        stream.restart()
        await collect(stream)
    assert not sink.closed
    assert sink.buffer == [1, 1, 2, 2]


async def test_law_11_no_restart_after_the_sinks_were_ended() -> None:
    stream = PullPushBridgeObj([1, 2], SinkNullObj())
    assert await anext(stream) == 1
    stream.restart()
    assert await collect(stream) == [1, 2]
    with pytest.raises(RuntimeError, match="forward_close=False keeps them open"):
        stream.restart()


async def test_law_4_end_errors_are_raised_after_all_sinks_end() -> None:
    first, second = Slow(ending=OSError("first")), Slow(ending=KeyError("second"))
    stream = PullPushBridgeObj([1], first, second)
    assert await anext(stream) == 1
    with pytest.raises(ExceptionGroup, match="several sinks failed to end"):
        await anext(stream)
    assert first.ends == second.ends == [None]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    first, second = Slow(ending=OSError("first")), Slow()
    stream = PullPushBridgeObj([1], first, second)
    with pytest.raises(OSError, match="first"):
        await stream.aclose()
    assert first.ends == second.ends == [None]
    await stream.aclose()


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: PushPullObj(wrong(1), [1]),
        TypeError,
        r"sink must be a push object, got 1 \(int\)",
    ),
    (
        lambda: PushPullObj(SinkNullObj(), wrong(1)),
        TypeError,
        r"source must be .*got 1 \(int\)",
    ),
    (lambda: PullPushBridgeObj([1]), ValueError, "sinks must hold at least one.*got none"),
    (
        lambda: PullPushBridgeObj([1], SinkNullObj(), wrong("x")),
        TypeError,
        r"sinks\[1\] must be a push object, got 'x' \(str\)",
    ),
    (
        lambda: PullPushBridgeObj([1], *[SinkNullObj()] * 2),
        ValueError,
        r"sinks must be different from each other, got .*sinks\[0\] and sinks\[1\]",
    ),
    (
        lambda: PullPushDistributeObj([1], [], int),
        ValueError,
        "sinks must hold at least one push object, got none",
    ),
    (
        lambda: PullPushDistributeObj([1], [SinkNullObj(), wrong(None)], int),
        TypeError,
        r"sinks\[1\] must be a push object, got None \(NoneType\)",
    ),
    (
        lambda: PullPushDistributeObj([1], wrong(1), int),
        TypeError,
        r"sinks must be an iterable of push objects, got 1 \(int\)",
    ),
    (
        lambda: PullPushDistributeObj(wrong(1), [SinkNullObj()], int),
        TypeError,
        r"source must be .*got 1 \(int\)",
    ),
    (
        lambda: PullPushDistributeObj([1], [SinkNullObj()], wrong(None)),
        TypeError,
        r"selector must be callable, got None \(NoneType\)",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()
