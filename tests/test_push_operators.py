"""The operators of a push line, against the plain Python that says the same; and the sinks."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PushBufferObj,
    PushCallbackObj,
    PushDedupeObj,
    PushFilterObj,
    PushFlatMapObj,
    PushFlattenObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushReduceObj,
    PushSerialObj,
    PushTakeObj,
    PushWindowObj,
    PushWindowTimeoutObj,
    SinkCallbackObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    WouldBlock,
)
from tests.support import Heart, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable


def is_open(sink: PushObj[Any]) -> bool:
    return not sink.closed


async def push_all(line: PushObj[Any], items: Iterable[Any]) -> list[bool]:
    return [(await line.next(item)).done for item in items]


class Failing(SinkObj[Any]):
    """Fails for what it is told to, and keeps the others."""

    def __init__(self, *bad: Any) -> None:
        super().__init__()
        self.bad = bad
        self.items: list[Any] = []
        self.ends: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await asyncio.sleep(0)
        if item in self.bad:
            raise OSError(item)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        self.ends.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        self.ends.append(error)


async def test_take_pushes_the_first_items_and_then_says_done() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    line = PushMapObj[int, int](PushTakeObj(PushMapObj[int, int](sink, lambda n: n * 10), 3), int)
    assert await push_all(line, range(5)) == [False, False, True, True, True]
    assert sink.buffer == [0, 10, 20]
    none: SinkCollectObj[int] = SinkCollectObj()
    assert await push_all(PushTakeObj(none, 0), [1]) == [True]
    assert none.buffer == []


async def test_law_13_the_size_of_take_and_window_is_live() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    take = PushTakeObj(sink, 2)
    assert await push_all(take, range(2)) == [False, True]
    take.size = 3
    assert await push_all(take, [2, 3]) == [True, True]
    assert sink.buffer == [0, 1, 2]
    sink.buffer.clear()
    window = PushWindowObj(sink, 10)
    await push_all(window, range(3))
    window.size = 4
    await push_all(window, [3])
    assert sink.buffer == [[0, 1, 2, 3]]


@pytest.mark.parametrize("kind", ["lists", "generators", "async generators", "ranges"])
async def test_flatten_pushes_the_items_of_each_item(kind: str) -> None:
    async def later(n: int) -> AsyncIterator[int]:
        for m in range(n):
            await asyncio.sleep(0)
            yield m

    makes: dict[str, Callable[[int], Any]] = {
        "lists": lambda n: list(range(n)),
        "generators": lambda n: (m for m in range(n)),
        "async generators": later,
        "ranges": range,
    }
    expected = list(itertools.chain.from_iterable(range(n) for n in (3, 0, 2)))
    sink: SinkCollectObj[int] = SinkCollectObj()
    await push_all(PushFlattenObj(sink), [makes[kind](n) for n in (3, 0, 2)])
    assert sink.buffer == expected
    sink.buffer.clear()
    await push_all(PushMapObj(PushFlatMapObj(sink, makes[kind]), int), (3, 0, 2))
    assert sink.buffer == expected
    sink.buffer.clear()

    async def made(n: int) -> Any:
        await asyncio.sleep(0)
        return makes[kind](n)

    await push_all(PushFlatMapObj(sink, made), (3, 0, 2))
    assert sink.buffer == expected


async def test_flatten_of_a_long_iterable_lets_the_loop_turn_law_16() -> None:
    async with Heart() as heart:
        sink: SinkCollectObj[int] = SinkCollectObj()
        await PushFlattenObj(sink).next(range(50_000))
    assert sink.buffer == list(range(50_000))
    assert heart.beats >= 50_000 // 4096


async def test_flatten_stops_where_no_more_is_wanted() -> None:
    asked: list[int] = []

    def ask() -> Any:
        for n in itertools.count():
            asked.append(n)
            yield n

    sink: SinkCollectObj[int] = SinkCollectObj()
    line = PushFlattenObj(PushTakeObj(sink, 3))
    assert (await line.next(ask())).done
    assert sink.buffer == [0, 1, 2]
    assert asked == [0, 1, 2]
    full: SinkCollectObj[int] = SinkCollectObj(2)
    assert (await PushFlattenObj(full).next(ask())).done
    assert full.buffer == [0, 1]


async def test_law_3_an_error_inside_an_iterable_costs_that_item_and_the_rest_goes_on() -> None:
    sink: SinkCollectObj[float] = SinkCollectObj()
    line = PushFlattenObj[int](PushMapObj[int, float](sink, lambda n: 1 / n))
    with pytest.raises(ZeroDivisionError) as caught:
        await line.next([1, 0, 2])
    assert sink.buffer == [1.0]
    assert getattr(caught.value, "accepted_by", ()) == (line,)
    await line.next([4])
    assert sink.buffer == [1.0, 0.5, 0.25]

    def broken() -> Any:
        yield 1
        raise OSError("broken")

    with pytest.raises(OSError, match="broken") as broke:
        await line.next(broken())
    assert broke.value.__notes__ == ["raised by item of PushFlattenObj"]
    await line.return_()
    assert sink.buffer == [1.0, 0.5, 0.25, 1.0]
    with pytest.raises(TypeError, match="only an iterable"):
        await PushFlattenObj(sink).next(wrong(3))


@pytest.mark.parametrize("count", range(8))
async def test_window_pushes_lists_and_the_partial_one_at_the_end(count: int) -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    line = PushMapObj[int, int](PushWindowObj(sink, 3), int)
    await push_all(line, range(count))
    whole_ones = [list(range(n, n + 3)) for n in range(0, count - 2, 3)]
    assert sink.buffer == whole_ones
    await line.return_()
    rest = list(range(count - count % 3, count))
    assert sink.buffer == whole_ones + ([rest] if rest else [])
    assert sink.closed
    dropping: SinkCollectObj[list[int]] = SinkCollectObj()
    window = PushWindowObj(dropping, 3, partial="drop")
    await push_all(window, range(count))
    await window.return_()
    assert dropping.buffer == whole_ones


async def test_buffer_pushes_lists_that_a_condition_closes_and_the_open_one_at_the_end() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    line = PushBufferObj(sink, lambda items: items[-1] % 3 == 0)
    await push_all(line, range(1, 6))
    assert sink.buffer == [[1, 2, 3]]
    line.condition = lambda items: items[-1] % 2 == 0
    await push_all(line, [6, 7])
    assert sink.buffer == [[1, 2, 3], [4, 5, 6]]
    await line.return_()
    assert sink.buffer == [[1, 2, 3], [4, 5, 6], [7]]
    dropping: SinkCollectObj[list[int]] = SinkCollectObj()
    other = PushBufferObj(dropping, lambda items: items[-1], partial="drop")
    await push_all(other, [0, 1, 0])
    await other.return_()
    assert dropping.buffer == [[0, 1]]


async def test_the_end_flushes_from_the_top_down() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    line = PushWindowObj[int](PushMapObj(PushWindowObj(PushMapObj(sink, tuple), 2), tuple), 2)
    await push_all(line, range(7))
    assert sink.buffer == [((0, 1), (2, 3))]
    assert await line.return_("value") == IteratorResult("value", True)
    assert sink.buffer == [((0, 1), (2, 3)), ((4, 5), (6,))]
    assert sink.closed
    with pytest.raises(ClosedError):
        await line.next(8)


async def test_an_error_in_the_flush_does_not_keep_the_end_from_what_is_below() -> None:
    sink = Failing([4])
    line = PushWindowObj[int](PushMapObj[list[int], list[int]](sink, list), 4)
    await push_all(line, range(5))
    with pytest.raises(OSError, match="4"):
        await line.return_("end")
    assert sink.items == [[0, 1, 2, 3]]
    assert sink.ends == ["end"]
    await line.return_("again")
    assert sink.ends == ["end"]


async def test_throw_drops_what_is_held_and_tells_the_sink() -> None:
    sink = Failing()
    line = PushWindowObj[int](PushMapObj[list[int], list[int]](sink, list), 4)
    await push_all(line, range(5))
    error = KeyError("x")
    await line.throw(error)
    assert sink.items == [[0, 1, 2, 3]]
    assert sink.ends == [error]
    with pytest.raises(ClosedError):
        await line.next(5)


async def test_law_3_a_failing_sink_costs_one_window() -> None:
    sink = Failing([2, 3])
    line = PushWindowObj(sink, 2)
    with pytest.raises(OSError, match="2, 3"):
        await push_all(line, range(4))
    await push_all(line, range(4, 7))
    await line.return_()
    assert sink.items == [[0, 1], [4, 5], [6]]


async def test_a_refused_window_is_in_the_error() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    window = PushWindowObj(sink, 2)
    line = PushMapObj(window, str)
    await line.next(1)
    await sink.return_()
    with pytest.raises(ClosedError) as caught:
        await line.next(2)
    assert caught.value.item == ["1", "2"]
    await window.return_()
    item = object()
    with pytest.raises(ClosedError) as closed:
        await line.next(item)
    assert closed.value.item is item


async def test_nowait_leaves_an_item_with_its_producer_or_with_a_stage_that_has_it() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(1)
    line = PushMapObj[int, int](PushWindowObj(PushMapObj(buffer.sink, tuple), 2), int)
    for n in range(4):
        assert line.next_nowait(n) == IteratorResult(None, False)
    # The second list waits in the window, which takes no third one.
    with pytest.raises(WouldBlock) as caught:
        line.next_nowait(4)
    assert caught.value.item == 4
    assert await anext(buffer.source) == (0, 1)
    line.next_nowait(4)
    assert await anext(buffer.source) == (2, 3)
    await line.return_()
    assert await anext(buffer.source) == (4,)


async def test_nowait_of_keys_and_iterables_loses_nothing() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    line = PushFlattenObj[int](PushDedupeObj(buffer.sink))
    pulled: list[int] = []
    for items in ([1, 2, 1, 3], [3, 4], [5]):
        while True:
            try:
                line.next_nowait(items)
                break
            except WouldBlock:
                pulled.append(await anext(buffer.source))
    ending = asyncio.create_task(line.return_())
    pulled += [item async for item in buffer.source]
    await ending
    assert pulled == [1, 2, 3, 4, 5]


async def test_nowait_of_what_can_only_be_awaited_changes_nothing() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()

    async def later(n: int) -> AsyncIterator[int]:
        yield n

    async def slowly(n: int) -> int:
        return n

    lines: list[PushObj[Any]] = [
        PushFlatMapObj(sink, later),
        PushReduceObj(sink, wrong(lambda _, n: slowly(n)), 0),
        PushCallbackObj(sink, before=slowly),
        PushCallbackObj(sink, after=slowly),
        SinkCallbackObj(slowly),
    ]
    for line in lines:
        with pytest.raises(WouldBlock) as caught:
            line.next_nowait(7)
        assert caught.value.item == 7
    assert sink.buffer == []
    await lines[0].return_()
    assert sink.buffer == []

    class Async(SinkObj[int]):
        async def next_impl(self, item: int) -> None:
            pass

    with pytest.raises(RuntimeError, match="async next_impl"):
        Async().next_nowait(1)


async def test_collect_of_a_size_says_done_and_drops_the_rest() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj(2)
    assert sink.maxsize == 2
    assert await push_all(sink, range(4)) == [False, True, True, True]
    assert sink.buffer == [0, 1]
    assert sink.next_nowait(5).done
    assert SinkCollectObj[int]().maxsize is None


async def test_callbacks_are_called_in_turn_and_are_live() -> None:
    calls: list[tuple[str, int]] = []

    async def slow(n: int) -> None:
        await asyncio.sleep(0)
        calls.append(("slow", n))

    def fast(n: int) -> None:
        calls.append(("fast", n))

    sink: SinkCallbackObj[int] = SinkCallbackObj(slow, fast, slow)
    await push_all(PushMapObj(sink, int), [1])
    assert calls == [("slow", 1), ("fast", 1), ("slow", 1)]
    sink.callbacks = (fast,)
    calls.clear()
    await sink.next(2)
    sink.next_nowait(3)
    assert calls == [("fast", 2), ("fast", 3)]
    assert sink.callbacks == (fast,)

    def bad(n: int) -> None:
        raise OSError(n)

    sink.callbacks = (fast, bad)
    with pytest.raises(OSError, match="4") as caught:
        await sink.next(4)
    assert caught.value.__notes__ == ["raised by callbacks of SinkCallbackObj"]
    await sink.return_()
    with pytest.raises(ClosedError):
        await sink.next(5)


async def test_null_accepts_everything() -> None:
    sink: SinkNullObj[int] = SinkNullObj()
    assert await push_all(PushMapObj(sink, int), range(3)) == [False] * 3
    assert sink.next_nowait(1) == IteratorResult(None, False)
    await sink.return_()
    with pytest.raises(ClosedError):
        sink.next_nowait(1)


async def test_callback_calls_before_and_after_the_delivery() -> None:
    log: list[str] = []

    async def after(n: int) -> None:
        await asyncio.sleep(0)
        log.append(f"after {n}")

    sink: SinkCallbackObj[int] = SinkCallbackObj(lambda n: log.append(f"sink {n}"))
    line = PushCallbackObj(sink, before=lambda n: log.append(f"before {n}"), after=after)
    await line.next(1)
    assert log == ["before 1", "sink 1", "after 1"]
    line.after = None
    line.next_nowait(2)
    assert log[3:] == ["before 2", "sink 2"]

    def bad(n: int) -> None:
        raise OSError(n)

    line.before, line.after = bad, None
    with pytest.raises(OSError, match="3") as caught:
        await line.next(3)
    assert caught.value.__notes__ == ["raised by before of PushCallbackObj"]
    assert not hasattr(caught.value, "accepted_by")
    line.before, line.after = None, bad
    with pytest.raises(OSError, match="4") as late:
        await line.next(4)
    assert getattr(late.value, "accepted_by", ()) == (sink,)
    assert log[5:] == ["sink 4"]


async def test_serial_nowait_is_refused_while_it_is_somebody_elses_turn() -> None:
    gate = asyncio.Event()

    async def wait(n: int) -> int:
        await gate.wait()
        return n

    sink: SinkCollectObj[int] = SinkCollectObj()
    line = PushSerialObj(PushMapObj(sink, wait))
    first = asyncio.create_task(line.next(1))
    await asyncio.sleep(0)
    with pytest.raises(WouldBlock) as caught:
        line.next_nowait(2)
    assert caught.value.item == 2
    end = asyncio.create_task(line.return_())
    await asyncio.sleep(0)
    assert is_open(sink), "the end waits for its turn"
    gate.set()
    await first
    await end
    assert sink.buffer == [1]
    assert not is_open(sink)
    with pytest.raises(ClosedError):
        line.next_nowait(3)


async def test_law_12_serial_serves_in_the_order_of_arrival_whoever_gives_up() -> None:
    sink = Failing(4, 9)
    line = PushSerialObj(sink)
    pushes = [asyncio.create_task(line.next(n)) for n in range(12)]
    await asyncio.sleep(0)
    for n in (0, 3, 7):
        pushes[n].cancel()
    outcomes = await asyncio.gather(*pushes, return_exceptions=True)
    accepted = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, IteratorResult)]
    # An eager task may have been through with the first one before it was cancelled.
    assert [n for n in accepted if n] == [1, 2, 5, 6, 8, 10, 11]
    assert sink.items == accepted
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, OSError)] == [4, 9]


STAGES: dict[str, Callable[[Any], Any]] = {
    "batch": lambda sink: PushWindowObj(sink, 1),
    "take": lambda sink: PushTakeObj(sink, 10),
    "flatten": lambda sink: PushFlatMapObj(sink, lambda n: [n]),
    "filter": lambda sink: PushFilterObj(sink, lambda _: True),
    "accumulate": lambda sink: PushReduceObj(sink, lambda _, n: n),
    "dedupe": lambda sink: PushDedupeObj(sink, key=id),
}


@pytest.mark.parametrize("name", STAGES)
async def test_law_17_ten_thousand_of_each(name: str) -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    line: Any = sink
    for _ in range(10_000):
        line = STAGES[name](line)
    await line.next(0)
    if name == "batch":
        depth, inner = 0, sink.buffer
        while inner != [0]:
            depth, inner = depth + 1, inner[0]
        assert depth == 10_000
        while sink.buffer != [0]:
            sink.buffer[:] = sink.buffer[0]
    assert sink.buffer == [0]
    await line.return_()
    assert sink.closed


async def test_law_17_ten_thousand_windows_flush_what_they_hold() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    line: Any = sink
    for number in range(10_000):
        line = PushWindowObj(line, 2) if number % 100 == 0 else PushMapObj(line, lambda n: n)
    await line.next(0)
    assert sink.buffer == []
    await line.return_()
    assert len(sink.buffer) == 1
    assert sink.closed


def test_a_cycle_through_a_line_is_collected() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    line = PushMapObj(PushWindowObj(sink, 2), lambda n: n)
    line.transform = lambda n: (line, n)
    line.next_nowait(1)
    line.next_nowait(2)
    assert len(sink.buffer) == 1
    gone = weakref.ref(line)
    line = sink = wrong(None)
    gc.collect()
    assert gone() is None


async def test_a_push_that_is_dropped_leaves_what_a_window_had() -> None:
    gate = asyncio.Event()
    waiting: list[Any] = []

    async def wait(n: Any) -> Any:
        waiting.append(n)
        await gate.wait()
        return n

    sink: SinkCollectObj[Any] = SinkCollectObj()
    line = PushWindowObj(PushMapObj(sink, wait), 2)
    await line.next(1)
    push: Any = line.next(2)
    while not waiting:  # a busy machine has the loop turn before
        push.send(None)
    push.close()
    other: Any = line.next(3)
    other.send(None)
    del other
    gate.set()
    await line.return_()
    assert sink.buffer == [[1, 2]], "the third item was its producer's"


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: PushWindowObj(SinkNullObj[Any](), 0), ValueError, "size must be at least 1"),
    (lambda: PushWindowObj(SinkNullObj[Any](), wrong("2")), TypeError, "size must be an integer"),
    (lambda: PushWindowObj(SinkNullObj[Any](), 2, partial=wrong("x")), ValueError, "partial must"),
    (lambda: PushBufferObj(SinkNullObj[Any](), wrong(3)), TypeError, "condition must be callable"),
    (lambda: PushBufferObj(SinkNullObj[Any](), bool, partial=wrong(1)), ValueError, "partial must"),
    (lambda: PushTakeObj(SinkNullObj[Any](), -1), ValueError, "size must be at least 0"),
    (lambda: PushFlattenObj(wrong([])), TypeError, "sink must be a push object"),
    (lambda: PushFlatMapObj(SinkNullObj[Any](), wrong(3)), TypeError, "transform must be callable"),
    (lambda: PushCallbackObj(SinkNullObj[Any]()), ValueError, "before or after"),
    (
        lambda: PushCallbackObj(SinkNullObj[Any](), before=wrong(3)),
        TypeError,
        r"before must be callable or None, got 3 \(int\)",
    ),
    (lambda: SinkCollectObj[Any](0), ValueError, "maxsize must be at least 1"),
    (lambda: SinkCollectObj[Any](wrong(1.5)), TypeError, "maxsize must be an integer"),
    (lambda: SinkCollectObj[Any](wrong(True)), TypeError, "maxsize must be an integer"),
    (SinkCallbackObj[Any], ValueError, "at least one callable"),
    (
        lambda: SinkCallbackObj(print, wrong(3)),
        TypeError,
        r"callbacks\[1\] must be callable, got 3",
    ),
    (lambda: PushWindowTimeoutObj(SinkNullObj[Any](), 0, 1), ValueError, "size must be at least 1"),
    (
        lambda: PushWindowTimeoutObj(SinkNullObj[Any](), 1, 0),
        ValueError,
        r"timeout must be positive, got 0 \(int\)",
    ),
    (
        lambda: PushWindowTimeoutObj(SinkNullObj[Any](), 1, float("nan")),
        ValueError,
        "timeout must be",
    ),
    (
        lambda: PushWindowTimeoutObj(SinkNullObj[Any](), 1, wrong("1")),
        TypeError,
        r"timeout must be a number, got '1' \(str\)",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()
