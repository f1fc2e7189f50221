"""Law 2 for everything that waits: cancelled at any moment, an item is in exactly one place.

Each case starts a waiter, lets the other side act after `acts` turns of the loop and cancels the waiter after `strikes`,
for every pair of the two. Who stands behind the waiter in the line must not notice.
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
from tests.support import turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TURNS = range(6)
MOMENTS = list(product(TURNS, TURNS))

# A pair of ends: an awaitable put, an awaitable get, a put and a get at once, and what is inside.
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
    """An item that is there now."""
    pull = anext(buffer.source)
    with pytest.raises(StopIteration) as done:
        # Its task may have had its share of ready items, and is asked to let the loop turn first.
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
    """The far end inside a line, where a feed waits and not the pull itself."""
    buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize or None)
    line = buffer.source.map(lambda x: x).filter(lambda _: True)
    sink = buffer.sink
    return sink.next, line.__anext__, sink.next_nowait, lambda: _pull(buffer), lambda: len(buffer)


MAKERS: dict[str, Callable[[int], Ends]] = {
    "queue": lambda maxsize: _queue(Queue, maxsize),
    "lifo queue": lambda maxsize: _queue(LifoQueue, maxsize),
    "priority queue": lambda maxsize: _queue(PriorityQueue, maxsize),
    "buffer": lambda maxsize: _buffer("fifo", maxsize),
    "lifo buffer": lambda maxsize: _buffer("lifo", maxsize),
    "priority buffer": lambda maxsize: _buffer("priority", maxsize),
    "fused line": _fused,
}


def move(get_now: Callable[[], int], into: list[int]) -> None:
    into.append(get_now())


async def struck(
    waiter: asyncio.Future[Any], act: Callable[[], Any], acts: int, strikes: int
) -> bool:
    """Lets both happen at their moments. Whether the waiter was cancelled."""
    for turn in TURNS:
        if turn == acts:
            act()
        if turn == strikes:
            waiter.cancel()
        await asyncio.sleep(0)
    await turns(4)
    assert waiter.done()
    return waiter.cancelled()


@pytest.mark.parametrize("maker", MAKERS)
async def test_law_2_a_get_cancelled_at_any_moment_leaves_its_item(maker: str) -> None:
    for acts, strikes in MOMENTS:
        _, get, put_now, _, size = MAKERS[maker](0)
        waiter = asyncio.ensure_future(get())
        got = [1] if not await struck(waiter, partial(put_now, 1), acts, strikes) else []
        assert size() + len(got) == 1, (acts, strikes)
        if not got:
            assert await get() == 1


@pytest.mark.parametrize("maker", [name for name in MAKERS if name != "fused line"])
async def test_law_2_a_get_cancelled_at_any_moment_hands_on(maker: str) -> None:
    for acts, strikes in MOMENTS:
        _, get, put_now, _, size = MAKERS[maker](0)
        waiter = asyncio.ensure_future(get())
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(get())
        was_cancelled = await struck(waiter, partial(put_now, 1), acts, strikes)
        assert size() == 0, (acts, strikes)
        assert behind.done() == was_cancelled, (acts, strikes)
        put_now(2)
        assert await behind == (1 if was_cancelled else 2)


@pytest.mark.parametrize("maker", MAKERS)
async def test_law_2_a_put_cancelled_at_any_moment_keeps_its_item(maker: str) -> None:
    for acts, strikes in MOMENTS:
        put, _, put_now, get_now, size = MAKERS[maker](1)
        put_now(0)
        waiter = asyncio.ensure_future(put(1))
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(put(2))
        taken: list[int] = []
        was_cancelled = await struck(waiter, partial(move, get_now, taken), acts, strikes)
        assert taken == [0], (acts, strikes)
        assert behind.done() == was_cancelled, (acts, strikes)
        taken.append(get_now())
        await turns(4)
        if not was_cancelled:
            assert behind.done()
            taken.append(get_now())
        assert taken == ([0, 2] if was_cancelled else [0, 1, 2]), (acts, strikes)
        assert size() == 0
        await behind


async def test_law_2_a_wait_cancelled_at_any_moment_leaves_the_value() -> None:
    for acts, strikes, iterates in product(TURNS, TURNS, (False, True)):
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(anext(signal) if iterates else signal.wait())
        was_cancelled = await struck(waiter, partial(signal.resolve, 1), acts, strikes)
        again = asyncio.ensure_future(signal.wait())
        await turns(3)
        assert again.done() == was_cancelled, (acts, strikes)
        signal.resolve(2)
        assert await again == (1 if was_cancelled else 2)


async def test_law_2_of_two_waits_either_may_be_cancelled_at_any_moment() -> None:
    for acts, strikes in MOMENTS:
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(signal.wait())
        other = asyncio.ensure_future(signal.wait())
        await asyncio.sleep(0)
        await struck(waiter, partial(signal.resolve, 1), acts, strikes)
        await turns(2)
        assert other.done(), (acts, strikes)
        assert await other == 1


async def test_law_2_a_join_cancelled_at_any_moment_disturbs_nobody() -> None:
    for acts, strikes in MOMENTS:
        queue: Queue[int] = Queue()
        queue.put_nowait(1)
        waiter = asyncio.ensure_future(queue.join())
        other = asyncio.ensure_future(queue.join())
        await struck(waiter, queue.task_done, acts, strikes)
        await turns(2)
        assert other.done(), (acts, strikes)


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
async def test_law_2_a_put_cancelled_at_any_moment_beside_a_close_is_its_producers(
    order: Any,
) -> None:
    for acts, strikes in MOMENTS:
        buffer: PushPullBufferObj[int] = PushPullBufferObj(1, order=order)
        buffer.sink.next_nowait(0)
        waiter = asyncio.ensure_future(buffer.sink.next(1))
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(buffer.sink.next(2))
        close = partial(asyncio.ensure_future, buffer.source.aclose())
        was_cancelled = await struck(waiter, close, acts, strikes)
        for push, item in [(behind, 2)] if was_cancelled else [(waiter, 1), (behind, 2)]:
            error = push.exception()
            assert isinstance(error, ClosedError), (acts, strikes)
            assert error.item == item


async def test_law_2_an_error_whose_pull_is_cancelled_at_any_moment_is_the_next_ones() -> None:
    for acts, strikes in MOMENTS:
        buffer: PushPullBufferObj[int] = PushPullBufferObj()
        error = KeyError("x")
        waiter = asyncio.ensure_future(anext(buffer.source))
        throw = partial(asyncio.ensure_future, buffer.sink.throw(error))
        was_cancelled = await struck(waiter, throw, acts, strikes)
        if not was_cancelled:
            assert waiter.exception() is error, (acts, strikes)
        else:
            with pytest.raises(KeyError) as caught:
                await anext(buffer.source)
            assert caught.value is error, (acts, strikes)
        with pytest.raises(StopAsyncIteration):
            await anext(buffer.source)


@pytest.mark.parametrize("stops", [False, True])
async def test_law_2_a_wait_cancelled_at_any_moment_beside_an_end_keeps_it_from_nobody(
    stops: bool,
) -> None:
    for acts, strikes in MOMENTS:
        signal: WaitObject[int] = WaitObject()
        waiter = asyncio.ensure_future(signal.wait())
        other = asyncio.ensure_future(signal.wait())
        act = signal.stop if stops else partial(signal.reject, OSError("down"))
        was_cancelled = await struck(waiter, act, acts, strikes)
        kind = ClosedError if stops else OSError
        for wait in [other] if was_cancelled else [waiter, other]:
            assert type(wait.exception()) is kind, (acts, strikes)
        with pytest.raises(kind):
            await signal.wait()


@pytest.mark.parametrize("concurrent", [True, False])
async def test_law_2_a_fork_into_full_buffers_cancelled_at_any_moment_names_who_has_it(
    concurrent: bool,
) -> None:
    partly = 0
    for room, more_room, strikes in product(TURNS, TURNS, TURNS):
        buffers = [PushPullBufferObj[int](1) for _ in range(3)]
        # Two that are full, and one that is not in between.
        for buffer in (buffers[0], buffers[2]):
            buffer.sink.next_nowait(0)
        fork = PushForkObj([buffer.sink for buffer in buffers], concurrent=concurrent)
        push = asyncio.ensure_future(fork.next(1))
        for turn in TURNS:
            if turn == room:
                assert _pull(buffers[0]) == 0
            if turn == more_room:
                assert _pull(buffers[2]) == 0
            if turn == strikes:
                push.cancel()
            await asyncio.sleep(0)
        await turns(6)
        assert push.done()
        have_it = [buffer.sink for buffer in buffers if len(buffer)]
        for buffer in buffers:
            assert buffer.statistics().waiting_producers == 0
            assert not len(buffer) or _pull(buffer) == 1
        if push.cancelled():
            with pytest.raises(asyncio.CancelledError) as caught:
                push.result()
            named = list(getattr(caught.value, "accepted_by", ()))
            assert named == have_it, (room, more_room, strikes)
            partly += 0 < len(named) < 3
        else:
            assert len(have_it) == 3, (room, more_room, strikes)
    assert partly > 20


async def test_law_2_one_in_a_line_of_pushes_cancelled_at_any_moment_leaves_the_others() -> None:
    for victim, acts, strikes in product(range(3), TURNS, TURNS):
        buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
        buffer.sink.next_nowait(-1)
        line = PushSerialObj(PushMapObj(buffer.sink, int))
        pushes = [asyncio.ensure_future(line.next(n)) for n in range(3)]
        taken: list[int] = []
        await struck(pushes[victim], partial(move, partial(_pull, buffer), taken), acts, strikes)
        while not all(push.done() for push in pushes):
            await turns(4)
            if len(buffer):
                taken.append(_pull(buffer))
        if len(buffer):
            taken.append(_pull(buffer))
        accepted = [n for n, push in enumerate(pushes) if not push.cancelled()]
        assert taken == [-1, *accepted], (victim, acts, strikes)
        assert set(range(3)) - set(accepted) <= {victim}
