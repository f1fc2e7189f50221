"""Guarantee 2 for every waiting operation: wherever it is cancelled, an item is in exactly one place.

Each case starts a waiter, lets the other side act after `acts` loop iterations and cancels the waiter after `cancels`,
for every pair of the two. The next waiter in the queue must not be affected.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    PushSerialObj,
    WaitObject,
)
from headrace.queue import LifoQueue, PriorityQueue, Queue
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ITERATIONS = range(6)
MOMENTS = list(product(ITERATIONS, ITERATIONS))

# An awaitable put, an awaitable get, a put and a get that do not wait, and the number of items.
Ends = tuple[
    "Callable[[int], Awaitable[Any]]",
    "Callable[[], Awaitable[int]]",
    "Callable[[int], Any]",
    "Callable[[], int]",
    "Callable[[], int]",
]


def _queue(kind: type[Queue[int]], maxsize: int) -> Ends:
    queue = kind(maxsize)
    return queue.put, queue.get, queue.put_nowait, queue.get_nowait, queue.qsize


def _pull(buffer: PushPullBufferObj[int]) -> int:
    """Return an item that is available now."""
    pull = anext(buffer.source)
    with pytest.raises(StopIteration) as done:
        # The first step may be a yield, if the task has used up its yield budget.
        while pull.send(None) is None:
            pass
    item: int = done.value.value
    return item


def _buffer(order: Any, maxsize: int) -> Ends:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize or None, order=order)

    async def get_result() -> int:
        result = await buffer.source.next()
        item: int = result.value
        return item

    get = get_result if order == "lifo" else buffer.source.__anext__
    sink = buffer.sink
    return sink.next, get, sink.next_nowait, lambda: _pull(buffer), lambda: len(buffer)


def _fused(maxsize: int) -> Ends:
    """Return the ends of a buffer inside a fused pipeline, where its source waits and not the pull itself."""
    buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize or None)
    pipeline = buffer.source.map(lambda x: x).filter(lambda _: True)
    sink = buffer.sink
    return (
        sink.next,
        pipeline.__anext__,
        sink.next_nowait,
        lambda: _pull(buffer),
        lambda: len(buffer),
    )


MAKERS: dict[str, Callable[[int], Ends]] = {
    "queue": lambda maxsize: _queue(Queue, maxsize),
    "lifo queue": lambda maxsize: _queue(LifoQueue, maxsize),
    "priority queue": lambda maxsize: _queue(PriorityQueue, maxsize),
    "buffer": lambda maxsize: _buffer("fifo", maxsize),
    "lifo buffer": lambda maxsize: _buffer("lifo", maxsize),
    "priority buffer": lambda maxsize: _buffer("priority", maxsize),
    "fused pipeline": _fused,
}


def move(get_now: Callable[[], int], into: list[int]) -> None:
    into.append(get_now())


async def act_and_cancel(
    waiter: asyncio.Future[Any], act: Callable[[], Any], acts: int, cancels: int
) -> bool:
    """Act and cancel at the given iterations; return whether the waiter was cancelled."""
    for iteration in ITERATIONS:
        if iteration == acts:
            act()
        if iteration == cancels:
            waiter.cancel()
        await asyncio.sleep(0)
    await yield_to_loop(4)
    assert waiter.done()
    return waiter.cancelled()


@pytest.mark.parametrize("maker", MAKERS)
async def test_law_2_cancelled_get_leaves_its_item(maker: str) -> None:
    for acts, cancels in MOMENTS:
        _, get, put_now, _, size = MAKERS[maker](0)
        waiter = asyncio.ensure_future(get())
        got = [1] if not await act_and_cancel(waiter, partial(put_now, 1), acts, cancels) else []
        assert size() + len(got) == 1, (acts, cancels)
        if not got:
            assert await get() == 1


@pytest.mark.parametrize("maker", [name for name in MAKERS if name != "fused pipeline"])
async def test_law_2_cancelled_get_passes_its_item_on(maker: str) -> None:
    for acts, cancels in MOMENTS:
        _, get, put_now, _, size = MAKERS[maker](0)
        waiter = asyncio.ensure_future(get())
        await asyncio.sleep(0)
        next_waiter = asyncio.ensure_future(get())
        was_cancelled = await act_and_cancel(waiter, partial(put_now, 1), acts, cancels)
        assert size() == 0, (acts, cancels)
        assert next_waiter.done() == was_cancelled, (acts, cancels)
        put_now(2)
        assert await next_waiter == (1 if was_cancelled else 2)


@pytest.mark.parametrize("maker", MAKERS)
async def test_law_2_cancelled_put_does_not_store_its_item(maker: str) -> None:
    for acts, cancels in MOMENTS:
        put, _, put_now, get_now, size = MAKERS[maker](1)
        put_now(0)
        waiter = asyncio.ensure_future(put(1))
        await asyncio.sleep(0)
        next_waiter = asyncio.ensure_future(put(2))
        taken: list[int] = []
        was_cancelled = await act_and_cancel(waiter, partial(move, get_now, taken), acts, cancels)
        assert taken == [0], (acts, cancels)
        assert next_waiter.done() == was_cancelled, (acts, cancels)
        taken.append(get_now())
        await yield_to_loop(4)
        if not was_cancelled:
            assert next_waiter.done()
            taken.append(get_now())
        assert taken == ([0, 2] if was_cancelled else [0, 1, 2]), (acts, cancels)
        assert size() == 0
        await next_waiter


async def test_law_2_cancelled_wait_leaves_the_value() -> None:
    for acts, cancels, iterates in product(ITERATIONS, ITERATIONS, (False, True)):
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(anext(signal) if iterates else signal.wait())
        was_cancelled = await act_and_cancel(waiter, partial(signal.resolve, 1), acts, cancels)
        again = asyncio.ensure_future(signal.wait())
        await yield_to_loop(3)
        assert again.done() == was_cancelled, (acts, cancels)
        signal.resolve(2)
        assert await again == (1 if was_cancelled else 2)


async def test_law_2_cancelled_wait_does_not_affect_another() -> None:
    for acts, cancels in MOMENTS:
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(signal.wait())
        other = asyncio.ensure_future(signal.wait())
        await asyncio.sleep(0)
        await act_and_cancel(waiter, partial(signal.resolve, 1), acts, cancels)
        await yield_to_loop(2)
        assert other.done(), (acts, cancels)
        assert await other == 1


async def test_law_2_cancelled_join_does_not_affect_another() -> None:
    for acts, cancels in MOMENTS:
        queue: Queue[int] = Queue()
        queue.put_nowait(1)
        waiter = asyncio.ensure_future(queue.join())
        other = asyncio.ensure_future(queue.join())
        await act_and_cancel(waiter, queue.task_done, acts, cancels)
        await yield_to_loop(2)
        assert other.done(), (acts, cancels)


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
async def test_law_2_put_cancelled_beside_a_close_keeps_its_item(
    order: Any,
) -> None:
    for acts, cancels in MOMENTS:
        buffer: PushPullBufferObj[int] = PushPullBufferObj(1, order=order)
        buffer.sink.next_nowait(0)
        waiter = asyncio.ensure_future(buffer.sink.next(1))
        await asyncio.sleep(0)
        next_waiter = asyncio.ensure_future(buffer.sink.next(2))
        close = partial(asyncio.ensure_future, buffer.source.aclose())
        was_cancelled = await act_and_cancel(waiter, close, acts, cancels)
        for push, item in [(next_waiter, 2)] if was_cancelled else [(waiter, 1), (next_waiter, 2)]:
            error = push.exception()
            assert isinstance(error, ClosedError), (acts, cancels)
            assert error.item == item


async def test_law_2_error_of_a_cancelled_pull_is_raised_next() -> None:
    for acts, cancels in MOMENTS:
        buffer: PushPullBufferObj[int] = PushPullBufferObj()
        error = KeyError("x")
        waiter = asyncio.ensure_future(anext(buffer.source))
        throw = partial(asyncio.ensure_future, buffer.sink.throw(error))
        was_cancelled = await act_and_cancel(waiter, throw, acts, cancels)
        if not was_cancelled:
            assert waiter.exception() is error, (acts, cancels)
        else:
            with pytest.raises(KeyError) as caught:
                await anext(buffer.source)
            assert caught.value is error, (acts, cancels)
        with pytest.raises(StopAsyncIteration):
            await anext(buffer.source)


@pytest.mark.parametrize("stops", [False, True])
async def test_law_2_wait_cancelled_beside_an_end_keeps_the_end(
    stops: bool,
) -> None:
    for acts, cancels in MOMENTS:
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(signal.wait())
        other = asyncio.ensure_future(signal.wait())
        act = signal.stop if stops else partial(signal.reject, OSError("down"))
        was_cancelled = await act_and_cancel(waiter, act, acts, cancels)
        kind = ClosedError if stops else OSError
        for wait in [other] if was_cancelled else [waiter, other]:
            assert type(wait.exception()) is kind, (acts, cancels)
        with pytest.raises(kind):
            await signal.wait()


@pytest.mark.parametrize("concurrent", [True, False])
async def test_law_2_cancelled_fork_names_the_accepting_sinks(
    concurrent: bool,
) -> None:
    partly = 0
    for frees_first, frees_last, cancels in product(ITERATIONS, ITERATIONS, ITERATIONS):
        buffers = [PushPullBufferObj[int](1) for _ in range(3)]
        # Two full buffers, and one with space between them.
        for buffer in (buffers[0], buffers[2]):
            buffer.sink.next_nowait(0)
        fork = PushForkObj([buffer.sink for buffer in buffers], concurrent=concurrent)
        push = asyncio.ensure_future(fork.next(1))
        for iteration in ITERATIONS:
            if iteration == frees_first:
                assert _pull(buffers[0]) == 0
            if iteration == frees_last:
                assert _pull(buffers[2]) == 0
            if iteration == cancels:
                push.cancel()
            await asyncio.sleep(0)
        await yield_to_loop(6)
        assert push.done()
        accepting = [buffer.sink for buffer in buffers if len(buffer)]
        for buffer in buffers:
            assert buffer.statistics().waiting_producers == 0
            assert not len(buffer) or _pull(buffer) == 1
        if push.cancelled():
            with pytest.raises(asyncio.CancelledError) as caught:
                push.result()
            accepted_by = list(getattr(caught.value, "accepted_by", ()))
            assert accepted_by == accepting, (frees_first, frees_last, cancels)
            partly += 0 < len(accepted_by) < 3
        else:
            assert len(accepting) == 3, (frees_first, frees_last, cancels)
    assert partly > 20


async def test_law_2_cancelled_push_in_a_queue_keeps_others() -> None:
    for victim, acts, cancels in product(range(3), ITERATIONS, ITERATIONS):
        buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
        buffer.sink.next_nowait(-1)
        pipeline = PushSerialObj(PushMapObj(buffer.sink, int))
        pushes = [asyncio.ensure_future(pipeline.next(n)) for n in range(3)]
        taken: list[int] = []
        await act_and_cancel(
            pushes[victim], partial(move, partial(_pull, buffer), taken), acts, cancels
        )
        while not all(push.done() for push in pushes):
            await yield_to_loop(4)
            if len(buffer):
                taken.append(_pull(buffer))
        if len(buffer):
            taken.append(_pull(buffer))
        accepted = [n for n, push in enumerate(pushes) if not push.cancelled()]
        assert taken == [-1, *accepted], (victim, acts, cancels)
        assert set(range(3)) - set(accepted) <= {victim}
