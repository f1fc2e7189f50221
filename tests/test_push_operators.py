"""Push operators, compared with plain Python that computes the same; and the sinks."""

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
from tests.push_support import push_all
from tests.support import Heart, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def is_open(sink: PushObj[Any]) -> bool:
    return not sink.closed


class Failing(SinkObj[Any]):
    """Fails for the given items and keeps all others."""

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


async def test_take_pushes_first_items_then_is_done() -> None:
    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushMapObj[int, int](
        PushTakeObj(PushMapObj[int, int](sink, lambda n: n * 10), 3), int
    )
    assert await push_all(pipeline, range(5)) == [False, False, True, True, True]
    assert sink.buffer == [0, 10, 20]
    none: SinkCollectObj[int] = SinkCollectObj()
    assert await push_all(PushTakeObj(none, 0), [1]) == [True]
    assert none.buffer == []


async def test_law_13_size_of_take_and_batch_is_live() -> None:
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
async def test_flatten_pushes_nested_items(kind: str) -> None:
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


async def test_law_16_flatten_yields_to_event_loop() -> None:
    async with Heart() as heart:
        sink: SinkCollectObj[int] = SinkCollectObj()
        await PushFlattenObj(sink).next(range(50_000))
    assert sink.buffer == list(range(50_000))
    assert heart.beats >= 50_000 // 4096


async def test_flatten_stops_when_sink_is_done() -> None:
    requested: list[int] = []

    def counter() -> Any:
        for n in itertools.count():
            requested.append(n)
            yield n

    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushFlattenObj(PushTakeObj(sink, 3))
    assert (await pipeline.next(counter())).done
    assert sink.buffer == [0, 1, 2]
    assert requested == [0, 1, 2]
    full: SinkCollectObj[int] = SinkCollectObj(2)
    assert (await PushFlattenObj(full).next(counter())).done
    assert full.buffer == [0, 1]


async def test_law_3_error_in_flatten_costs_one_nested_item() -> None:
    sink: SinkCollectObj[float] = SinkCollectObj()
    pipeline = PushFlattenObj[int](PushMapObj[int, float](sink, lambda n: 1 / n))
    with pytest.raises(ZeroDivisionError) as caught:
        await pipeline.next([1, 0, 2])
    assert sink.buffer == [1.0]
    assert getattr(caught.value, "accepted_by", ()) == (pipeline,)
    await pipeline.next([4])
    assert sink.buffer == [1.0, 0.5, 0.25]

    def broken() -> Any:
        yield 1
        raise OSError("broken")

    with pytest.raises(OSError, match="broken") as broke:
        await pipeline.next(broken())
    assert broke.value.__notes__ == ["raised by item of PushFlattenObj"]
    await pipeline.return_()
    assert sink.buffer == [1.0, 0.5, 0.25, 1.0]
    with pytest.raises(TypeError, match="only an iterable"):
        await PushFlattenObj(sink).next(wrong(3))


@pytest.mark.parametrize("count", range(8))
async def test_batch_pushes_partial_list_at_end(count: int) -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    pipeline = PushMapObj[int, int](PushWindowObj(sink, 3), int)
    await push_all(pipeline, range(count))
    full_batches = [list(range(n, n + 3)) for n in range(0, count - 2, 3)]
    assert sink.buffer == full_batches
    await pipeline.return_()
    rest = list(range(count - count % 3, count))
    assert sink.buffer == full_batches + ([rest] if rest else [])
    assert sink.closed
    dropping: SinkCollectObj[list[int]] = SinkCollectObj()
    window = PushWindowObj(dropping, 3, partial="drop")
    await push_all(window, range(count))
    await window.return_()
    assert dropping.buffer == full_batches


async def test_batch_until_pushes_partial_list_at_end() -> None:
    sink: SinkCollectObj[list[int]] = SinkCollectObj()
    pipeline = PushBufferObj(sink, lambda items: items[-1] % 3 == 0)
    await push_all(pipeline, range(1, 6))
    assert sink.buffer == [[1, 2, 3]]
    pipeline.condition = lambda items: items[-1] % 2 == 0
    await push_all(pipeline, [6, 7])
    assert sink.buffer == [[1, 2, 3], [4, 5, 6]]
    await pipeline.return_()
    assert sink.buffer == [[1, 2, 3], [4, 5, 6], [7]]
    dropping: SinkCollectObj[list[int]] = SinkCollectObj()
    other = PushBufferObj(dropping, lambda items: items[-1], partial="drop")
    await push_all(other, [0, 1, 0])
    await other.return_()
    assert dropping.buffer == [[0, 1]]


async def test_end_flushes_from_the_top_down() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushWindowObj[int](PushMapObj(PushWindowObj(PushMapObj(sink, tuple), 2), tuple), 2)
    await push_all(pipeline, range(7))
    assert sink.buffer == [((0, 1), (2, 3))]
    assert await pipeline.return_("value") == IteratorResult("value", True)
    assert sink.buffer == [((0, 1), (2, 3)), ((4, 5), (6,))]
    assert sink.closed
    with pytest.raises(ClosedError):
        await pipeline.next(8)


async def test_failed_flush_still_ends_the_sink() -> None:
    sink = Failing([4])
    pipeline = PushWindowObj[int](PushMapObj[list[int], list[int]](sink, list), 4)
    await push_all(pipeline, range(5))
    with pytest.raises(OSError, match="4"):
        await pipeline.return_("end")
    assert sink.items == [[0, 1, 2, 3]]
    assert sink.ends == ["end"]
    await pipeline.return_("again")
    assert sink.ends == ["end"]


async def test_throw_drops_held_items_and_reaches_sink() -> None:
    sink = Failing()
    pipeline = PushWindowObj[int](PushMapObj[list[int], list[int]](sink, list), 4)
    await push_all(pipeline, range(5))
    error = KeyError("x")
    await pipeline.throw(error)
    assert sink.items == [[0, 1, 2, 3]]
    assert sink.ends == [error]
    with pytest.raises(ClosedError):
        await pipeline.next(5)


async def test_law_3_failing_sink_costs_one_batch() -> None:
    sink = Failing([2, 3])
    pipeline = PushWindowObj(sink, 2)
    with pytest.raises(OSError, match="2, 3"):
        await push_all(pipeline, range(4))
    await push_all(pipeline, range(4, 7))
    await pipeline.return_()
    assert sink.items == [[0, 1], [4, 5], [6]]


async def test_refused_batch_is_in_the_error() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    window = PushWindowObj(sink, 2)
    pipeline = PushMapObj(window, str)
    await pipeline.next(1)
    await sink.return_()
    with pytest.raises(ClosedError) as caught:
        await pipeline.next(2)
    assert caught.value.item == ["1", "2"]
    await window.return_()
    item = object()
    with pytest.raises(ClosedError) as closed:
        await pipeline.next(item)
    assert closed.value.item is item


async def test_tap_calls_before_and_after_delivery() -> None:
    log: list[str] = []

    async def after(n: int) -> None:
        await asyncio.sleep(0)
        log.append(f"after {n}")

    sink: SinkCallbackObj[int] = SinkCallbackObj(lambda n: log.append(f"sink {n}"))
    pipeline = PushCallbackObj(sink, before=lambda n: log.append(f"before {n}"), after=after)
    await pipeline.next(1)
    assert log == ["before 1", "sink 1", "after 1"]
    pipeline.after = None
    pipeline.next_nowait(2)
    assert log[3:] == ["before 2", "sink 2"]

    def bad(n: int) -> None:
        raise OSError(n)

    pipeline.before, pipeline.after = bad, None
    with pytest.raises(OSError, match="3") as caught:
        await pipeline.next(3)
    assert caught.value.__notes__ == ["raised by before of PushCallbackObj: item 3"]
    assert not hasattr(caught.value, "accepted_by")
    pipeline.before, pipeline.after = None, bad
    with pytest.raises(OSError, match="4") as late:
        await pipeline.next(4)
    assert getattr(late.value, "accepted_by", ()) == (sink,)
    assert log[5:] == ["sink 4"]


async def test_serial_nowait_blocks_during_another_push() -> None:
    gate = asyncio.Event()

    async def wait(n: int) -> int:
        await gate.wait()
        return n

    sink: SinkCollectObj[int] = SinkCollectObj()
    pipeline = PushSerialObj(PushMapObj(sink, wait))
    first = asyncio.create_task(pipeline.next(1))
    await asyncio.sleep(0)
    with pytest.raises(WouldBlock) as caught:
        pipeline.next_nowait(2)
    assert caught.value.item == 2
    end = asyncio.create_task(pipeline.return_())
    await asyncio.sleep(0)
    assert is_open(sink), "the end waits until the push is through"
    gate.set()
    await first
    await end
    assert sink.buffer == [1]
    assert not is_open(sink)
    with pytest.raises(ClosedError):
        pipeline.next_nowait(3)


async def test_law_12_serial_is_fifo_despite_cancellations() -> None:
    sink = Failing(4, 9)
    pipeline = PushSerialObj(sink)
    pushes = [asyncio.create_task(pipeline.next(n)) for n in range(12)]
    await asyncio.sleep(0)
    for n in (0, 3, 7):
        pushes[n].cancel()
    outcomes = await asyncio.gather(*pushes, return_exceptions=True)
    accepted = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, IteratorResult)]
    # An eager task may have pushed the first item before the cancellation.
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
async def test_law_17_ten_thousand_of_each_operator(name: str) -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline: Any = sink
    for _ in range(10_000):
        pipeline = STAGES[name](pipeline)
    await pipeline.next(0)
    if name == "batch":
        depth, inner = 0, sink.buffer
        while inner != [0]:
            depth, inner = depth + 1, inner[0]
        assert depth == 10_000
        while sink.buffer != [0]:
            sink.buffer[:] = sink.buffer[0]
    assert sink.buffer == [0]
    await pipeline.return_()
    assert sink.closed


async def test_law_17_deep_pipeline_flushes_its_batches() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline: Any = sink
    for number in range(10_000):
        pipeline = (
            PushWindowObj(pipeline, 2) if number % 100 == 0 else PushMapObj(pipeline, lambda n: n)
        )
    await pipeline.next(0)
    assert sink.buffer == []
    await pipeline.return_()
    assert len(sink.buffer) == 1
    assert sink.closed


def test_reference_cycle_through_pipeline_is_collected() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushMapObj(PushWindowObj(sink, 2), lambda n: n)
    pipeline.transform = lambda n: (pipeline, n)
    pipeline.next_nowait(1)
    pipeline.next_nowait(2)
    assert len(sink.buffer) == 1
    pipeline_ref = weakref.ref(pipeline)
    pipeline = sink = wrong(None)
    gc.collect()
    assert pipeline_ref() is None


async def test_dropped_push_keeps_batch() -> None:
    gate = asyncio.Event()
    waiting: list[Any] = []

    async def wait(n: Any) -> Any:
        waiting.append(n)
        await gate.wait()
        return n

    sink: SinkCollectObj[Any] = SinkCollectObj()
    pipeline = PushWindowObj(PushMapObj(sink, wait), 2)
    await pipeline.next(1)
    push: Any = pipeline.next(2)
    while not waiting:  # a slow machine may yield to the loop first
        push.send(None)
    push.close()
    other: Any = pipeline.next(3)
    other.send(None)
    del other
    gate.set()
    await pipeline.return_()
    assert sink.buffer == [[1, 2]], "the third item was not accepted"


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
