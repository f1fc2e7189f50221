"""Orders and overflow policies of a buffer, and user code that uses the buffer while it compares items."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import heapq
import itertools
import random
import sys
import threading
import weakref
from typing import Any

import pytest

from headrace import ClosedError, PushPullBufferObj, WouldBlock
from headrace.buffer import BufferStatistics


async def drain(buffer: PushPullBufferObj[Any]) -> list[Any]:
    await buffer.sink.return_()
    return [item async for item in buffer.source]


def pull_now(buffer: PushPullBufferObj[Any]) -> Any:
    """Return an item that is available now."""
    pull = anext(buffer.source)
    with pytest.raises(StopIteration) as done:
        # The first step may be a yield, if the task has used up its yield budget.
        while pull.send(None) is None:
            pass
    return done.value.value


async def drain_after_pushing(buffer: PushPullBufferObj[Any], items: Any) -> list[Any]:
    for item in items:
        await buffer.sink.next(item)
    return await drain(buffer)


async def test_lifo_returns_the_last_item_first() -> None:
    assert await drain_after_pushing(PushPullBufferObj(order="lifo"), range(5)) == [4, 3, 2, 1, 0]


async def test_priority_order_is_stable() -> None:
    items = [(3, "a"), (1, "b"), (3, "c"), (2, "d"), (1, "e")]
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority", key=lambda item: item[0])
    assert await drain_after_pushing(buffer, items) == sorted(items, key=lambda item: item[0])


@pytest.mark.parametrize("seed", range(3))
async def test_priority_buffer_agrees_with_heapq(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority", key=lambda item: item[0])
    model: list[tuple[int, int]] = []
    for number in range(5000):
        if model and rng.random() < 0.4:
            assert await anext(buffer.source) == heapq.heappop(model)
        else:
            item = (rng.randrange(50), number)
            buffer.sink.next_nowait(item)
            heapq.heappush(model, item)
        if model and number % 7 == 0:
            assert buffer.peek() == model[0]
    assert await drain(buffer) == sorted(model)


async def test_blocked_push_is_sorted_in_when_space_is_free() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2, order="priority")
    pushes = [asyncio.create_task(buffer.sink.next(n)) for n in (5, 4, 1, 9)]
    received: list[int] = []
    for _ in range(4):
        for _ in range(3):
            await asyncio.sleep(0)
        received.append(await anext(buffer.source))
    assert received == [4, 1, 5, 9]
    await asyncio.gather(*pushes)


@pytest.mark.parametrize("push", ["next", "next_nowait"])
async def test_incomparable_item_leaves_the_buffer_unchanged(push: str) -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority")
    for item in (3, 1, 2):
        buffer.sink.next_nowait(item)
    with pytest.raises(TypeError, match="'<' not supported between") as caught:
        if push == "next":
            await buffer.sink.next("text")
        else:
            buffer.sink.next_nowait("text")
    (note,) = caught.value.__notes__
    assert "compared with another to find its position" in note
    assert buffer.statistics().size == 3
    assert await drain(buffer) == [1, 2, 3]


async def test_incomparable_blocked_push_passes_its_slot_on() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(2, order="priority")
    buffer.sink.next_nowait(1)
    buffer.sink.next_nowait(2)
    bad = asyncio.create_task(buffer.sink.next("text"))
    good = asyncio.create_task(buffer.sink.next(0))
    await asyncio.sleep(0)
    assert await anext(buffer.source) == 1
    with pytest.raises(TypeError, match="not supported"):
        await bad
    await good
    assert await drain(buffer) == [0, 2]


async def test_error_of_the_key_is_raised_by_the_push() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority", key=lambda item: 1 / item)
    await buffer.sink.next(4)
    with pytest.raises(ZeroDivisionError) as caught:
        await buffer.sink.next(0)
    assert caught.value.__notes__ == ["raised by key of PushPullBufferObj: item 0"]
    assert await drain(buffer) == [4]


async def test_key_is_never_visible_outside() -> None:
    buffer: PushPullBufferObj[str] = PushPullBufferObj(1, order="priority", key=len)
    await buffer.sink.next("abc")
    assert buffer.peek() == "abc"
    with pytest.raises(WouldBlock) as full:
        buffer.sink.next_nowait("de")
    assert full.value.item == "de"
    blocked = asyncio.create_task(buffer.sink.next("f"))
    await asyncio.sleep(0)
    assert (await buffer.source.next()).value == "abc"
    await blocked
    blocked = asyncio.create_task(buffer.sink.next("ghi"))
    await asyncio.sleep(0)
    await buffer.source.aclose()
    with pytest.raises(ClosedError) as closed:
        await blocked
    assert closed.value.item == "ghi"


async def test_drop_oldest_makes_space() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(3, overflow="drop_oldest")
    assert await drain_after_pushing(buffer, range(7)) == [4, 5, 6]
    assert buffer.statistics().dropped == 4


async def test_drop_oldest_by_priority_drops_by_age() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(3, overflow="drop_oldest", order="priority")
    assert await drain_after_pushing(buffer, [1, 9, 5, 7, 0]) == [0, 5, 7]


async def test_drop_newest_drops_the_pushed_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(3, overflow="drop_newest")
    assert await drain_after_pushing(buffer, range(7)) == [0, 1, 2]
    assert buffer.statistics().dropped == 4


async def test_overflow_error_raises_without_waiting() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1, overflow="error")
    await buffer.sink.next(1)
    for push in (buffer.sink.next(2), None):
        with pytest.raises(WouldBlock) as caught:
            await push if push else buffer.sink.next_nowait(2)
        assert caught.value.item == 2
    assert buffer.statistics().dropped == 0
    assert await drain(buffer) == [1]


async def test_dropped_item_is_freed() -> None:
    class Item:
        pass

    buffer: PushPullBufferObj[Any] = PushPullBufferObj(1, overflow="drop_oldest")
    first = Item()
    dead = weakref.ref(first)
    await buffer.sink.next(first)
    del first
    await buffer.sink.next(Item())
    assert dead() is None


async def test_statistics_are_a_snapshot() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    pushes = [asyncio.create_task(buffer.sink.next(n)) for n in range(4)]
    await asyncio.sleep(0)
    assert buffer.statistics() == BufferStatistics(
        size=2, high_water=2, dropped=0, waiting_consumers=0, waiting_producers=2
    )
    received = [await anext(buffer.source) for _ in range(4)]
    assert received == [0, 1, 2, 3]
    await asyncio.gather(*pushes)
    pull = asyncio.ensure_future(anext(buffer.source))
    await asyncio.sleep(0)
    now = buffer.statistics()
    assert (now.size, now.high_water, now.waiting_consumers) == (0, 2, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        now.size = 3  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    pull.cancel()
    await asyncio.wait([pull])


async def test_peek_returns_the_next_item_and_keeps_it() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    with pytest.raises(WouldBlock, match="empty"):
        buffer.peek()
    await buffer.sink.next(1)
    await buffer.sink.return_()
    assert buffer.peek() == 1
    assert await anext(buffer.source) == 1
    with pytest.raises(ClosedError, match="ended"):
        buffer.peek()


class PushesWhenCompared:
    """An item that pushes another one whenever it is compared, up to a number of times."""

    def __init__(self, buffer: PushPullBufferObj[Any], rank: int, times: int) -> None:
        self.buffer = buffer
        self.rank = rank
        self.times = times

    def __lt__(self, other: Any) -> bool:
        if self.times:
            self.times -= 1
            self.buffer.sink.next_nowait(PushesWhenCompared(self.buffer, self.times, 0))
        return self.rank < int(other.rank)

    def __eq__(self, other: object) -> bool:
        self.buffer.sink.next_nowait(self)
        return self is other

    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    def __del__(self) -> None:
        if self.rank < 0:
            self.buffer.sink.next_nowait(PushesWhenCompared(self.buffer, 7, 0))


async def test_comparison_may_push_into_the_same_buffer() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority")
    for n in range(200):
        buffer.sink.next_nowait(PushesWhenCompared(buffer, n % 50, 20))
    # Each comparison added an item.
    assert buffer.statistics().size > 1000
    ranks = [item.rank for item in await drain(buffer)]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("by_key", [False, True])
async def test_equality_may_push_into_the_same_buffer(by_key: bool) -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(
        order="priority", key=(lambda item: item) if by_key else None
    )
    pushed = 0

    class PushesWhenEqual:
        """An item that pushes whenever it is tested for equality, as tuples do before they order."""

        def __init__(self, times: int) -> None:
            self.times = times

        def __eq__(self, other: object) -> bool:
            nonlocal pushed
            if self.times:
                pushed += 1
                self.times -= 1
                buffer.sink.next_nowait((PushesWhenEqual(0), pushed))
            return True

        __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    for n in range(100):
        buffer.sink.next_nowait((PushesWhenEqual(3), -n))
    assert pushed > 100
    ranks = [rank for _, rank in await drain(buffer)]
    assert ranks == sorted(ranks)
    assert len(ranks) == 100 + pushed


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "error"])
async def test_destructor_may_push_wherever_an_item_is_freed(order: Any, overflow: Any) -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(
        2, order=order, overflow=overflow, key=(lambda _: 0) if order == "priority" else None
    )
    died: list[str] = []

    class Last:
        """An item whose destructor pushes, if the buffer has space."""

        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            died.append(self.name)
            with contextlib.suppress(WouldBlock, ClosedError):
                buffer.sink.next_nowait("from the grave")

    # Refused or dropped, cancelled while it waits for space, pulled, and discarded by the close.
    for n in range(4):
        with contextlib.suppress(WouldBlock):
            buffer.sink.next_nowait(Last(f"now {n}"))
    push = asyncio.ensure_future(buffer.sink.next(Last("waits")))
    await asyncio.sleep(0)
    push.cancel()
    await asyncio.wait([push])
    del push
    for _ in range(2):
        pull_now(buffer)
    with contextlib.suppress(WouldBlock):
        buffer.sink.next_nowait(Last("closed over"))
    await buffer.source.aclose()
    gc.collect()
    assert sorted(died) == ["closed over", *(f"now {n}" for n in range(4)), "waits"]
    assert len(buffer) == 0


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
async def test_items_of_a_collected_buffer_may_push_into_it(order: Any) -> None:
    class Last:
        buffer: Any

        def __del__(self) -> None:
            died.append(1)
            with contextlib.suppress(ClosedError):
                self.buffer.sink.next_nowait("from the grave")

    died: list[int] = []
    last = Last()
    last.buffer = PushPullBufferObj(order=order, key=(lambda _: 0) if order == "priority" else None)
    last.buffer.sink.next_nowait(last)
    del last
    gc.collect()
    assert died == [1]


async def test_comparison_may_pull_from_the_same_buffer() -> None:
    class Thief:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: Thief) -> bool:
            if self.rank % 3 == 0 and len(buffer):
                stolen.append(pull_now(buffer).rank)
            return self.rank < other.rank

    buffer: PushPullBufferObj[Thief] = PushPullBufferObj(order="priority")
    stolen: list[int] = []
    for n in range(100):
        buffer.sink.next_nowait(Thief(n * 37 % 100))
    left = [item.rank for item in await drain(buffer)]
    assert left == sorted(left)
    assert sorted(left + stolen) == list(range(100))


async def test_destructor_of_a_dropped_item_may_push() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(2, overflow="drop_oldest")
    for _ in range(3):
        buffer.sink.next_nowait(PushesWhenCompared(buffer, -1, 0))
    gc.collect()
    assert [item.rank for item in await drain(buffer)][-1] == 7


async def test_destructor_push_at_close_raises_closed_error() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="lifo")
    refused: list[BaseException | None] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda caught: refused.append(caught.exc_value)
    try:
        buffer.sink.next_nowait(PushesWhenCompared(buffer, -1, 0))
        await buffer.source.aclose()
    finally:
        sys.unraisablehook = hook
    assert [type(error) for error in refused] == [ClosedError]


def test_law_9_threads_push_by_priority_while_others_pull() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj(order="priority")
    threads, count = 4, 500
    received: list[int] = []

    class Slow:
        """An item that compares in Python, so that threads switch in the middle of a search."""

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: Slow) -> bool:
            return [self.rank for _ in range(20)][-1] < other.rank

    def produce(number: int) -> None:
        rng = random.Random(number)
        for n in range(count):
            buffer.sink.next_nowait(Slow(rng.randrange(1000)))
            if n % 3 == 0:
                received.append(pull_now(buffer).rank)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=produce, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(50)
            assert not worker.is_alive()
    finally:
        sys.setswitchinterval(interval)
    left = [item.rank for item in asyncio.run(drain(buffer))]
    assert left == sorted(left)
    assert len(left) + len(received) == threads * count


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
@pytest.mark.parametrize("blocked", [False, True])
async def test_cycles_through_a_buffer_are_collected(order: Any, blocked: bool) -> None:
    class Holder:
        buffer: Any
        push: Any

        def __lt__(self, other: Any) -> bool:
            return False

    holder = Holder()
    key = id if order == "priority" else None
    holder.buffer = PushPullBufferObj(1, order=order, key=key)
    if blocked:
        # An item that waits for space is referenced by its push, and the push by the item.
        await holder.buffer.sink.next(0)
        holder.push = holder.buffer.sink.next(holder)
        holder.push.send(None)
    else:
        await holder.buffer.sink.next(holder)
    dead = weakref.ref(holder)
    del holder
    gc.collect()
    assert dead() is None


async def test_cycle_through_a_buffered_error_is_collected() -> None:
    class OwnError(Exception):
        buffer: Any

    error = OwnError()
    error.buffer = PushPullBufferObj()
    await error.buffer.sink.throw(error)
    dead = weakref.ref(error)
    del error
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"overflow": "drop"}, ValueError, "overflow must be one of 'block', 'drop_oldest'"),
        ({"overflow": None}, TypeError, "overflow must be one of .*, got None"),
        ({"order": "random"}, ValueError, "order must be one of 'fifo', 'lifo', 'priority', got"),
        ({"order": 1}, TypeError, "order must be one of .*, got 1"),
        ({"key": len}, ValueError, "key is only for order='priority', got"),
        ({"key": len, "order": "lifo"}, ValueError, "key is only for order='priority', got"),
        (
            {"key": 3, "order": "priority"},
            TypeError,
            r"key must be callable or None, got 3 \(int\)",
        ),
    ],
)
def test_law_14_bad_input_is_refused(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        PushPullBufferObj(**arguments)


@pytest.mark.parametrize(
    ("overflow", "order"),
    list(itertools.product(["drop_oldest", "drop_newest"], ["fifo", "lifo", "priority"])),
)
@pytest.mark.parametrize("seed", range(2))
async def test_every_item_is_pulled_or_counted_as_dropped(
    overflow: Any, order: Any, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    buffer: PushPullBufferObj[int] = PushPullBufferObj(5, overflow=overflow, order=order)
    out: list[int] = []
    for n in range(500):
        await buffer.sink.next(n)
        while len(buffer) and rng.random() < 0.4:
            out.append(await anext(buffer.source))
    out += await drain(buffer)
    assert len(set(out)) == len(out)
    assert len(out) + buffer.statistics().dropped == 500
