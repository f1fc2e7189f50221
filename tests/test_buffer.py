"""`PushPullBufferObj`, the buffer between push and pull."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import threading
import weakref
from typing import Any

import pytest

from headrace import ClosedError, PushPullBufferObj, WouldBlock
from tests.support import collect


async def test_items_are_pulled_in_the_order_of_pushes() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    for n in range(5):
        await buffer.sink.next(n)
    await buffer.sink.return_()
    assert len(buffer) == 5
    assert await collect(buffer.source) == [0, 1, 2, 3, 4]


async def test_full_buffer_blocks_its_producer() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    order: list[str] = []

    async def produce() -> None:
        for n in range(5):
            await buffer.sink.next(n)
            order.append(f"in {n}")
        await buffer.sink.return_()

    task = asyncio.create_task(produce())
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["in 0", "in 1"]
    assert await collect(buffer.source) == [0, 1, 2, 3, 4]
    await task


async def test_law_2_cancelled_pull_leaves_the_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pull = asyncio.ensure_future(anext(buffer.source))
    await asyncio.sleep(0)
    buffer.sink.next_nowait(1)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await anext(buffer.source) == 1


async def test_law_2_cancelled_push_does_not_store_the_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    await buffer.sink.next(1)
    push = asyncio.ensure_future(buffer.sink.next(2))
    await asyncio.sleep(0)
    assert await anext(buffer.source) == 1
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert len(buffer) == 0
    buffer.sink.next_nowait(3)
    assert await anext(buffer.source) == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("maxsize", [1, 3, None])
async def test_law_2_random_cancellations_move_each_item_once(
    seed: int, maxsize: int | None
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize)
    accepted: list[int] = []
    received: list[int] = []

    async def produce() -> None:
        for n in range(100):
            while True:
                push = asyncio.ensure_future(buffer.sink.next(n))
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                if rng.random() < 0.3:
                    push.cancel()
                try:
                    await push
                except asyncio.CancelledError:
                    continue
                accepted.append(n)
                break
        await buffer.sink.return_()

    async def consume() -> None:
        while True:
            pull = asyncio.ensure_future(anext(buffer.source))
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                pull.cancel()
            try:
                received.append(await pull)
            except asyncio.CancelledError:
                continue
            except StopAsyncIteration:
                return

    await asyncio.gather(produce(), consume())
    assert accepted == list(range(100))
    assert received == list(range(100))


async def test_producer_error_is_raised_once_after_last_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    await buffer.sink.next(1)
    error = OSError("gone")
    await buffer.sink.throw(error)
    assert await anext(buffer.source) == 1
    with pytest.raises(OSError, match="gone") as caught:
        await anext(buffer.source)
    assert caught.value is error
    with pytest.raises(StopAsyncIteration):
        await anext(buffer.source)


async def test_close_returns_the_items_of_blocked_pushes() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    await buffer.sink.next(1)
    pushes = [asyncio.create_task(buffer.sink.next(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    await buffer.source.aclose()
    outcomes = await asyncio.gather(*pushes, return_exceptions=True)
    assert [error.item for error in outcomes if isinstance(error, ClosedError)] == [2, 3]
    # The pushes were in time; the message says that the source was closed.
    assert "its source was closed" in str(outcomes[0])
    with pytest.raises(ClosedError):
        buffer.sink.next_nowait(4)


async def test_end_wakes_waiting_pulls() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pulls = [asyncio.create_task(buffer.source.next()) for _ in range(3)]
    await asyncio.sleep(0)
    await buffer.sink.return_()
    assert [result.done for result in await asyncio.gather(*pulls)] == [True] * 3


async def test_close_after_the_end_keeps_end_for_waiting_pulls() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pulls = [asyncio.create_task(buffer.source.next()) for _ in range(3)]
    await asyncio.sleep(0)
    await buffer.sink.return_()
    # All pulls are notified, and none has resumed yet.
    await buffer.source.aclose()
    assert [result.done for result in await asyncio.gather(*pulls)] == [True] * 3


async def test_waiting_pipeline_gets_the_end() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pipeline = buffer.source.map(abs)
    pull = asyncio.create_task(pipeline.next())
    await asyncio.sleep(0)
    await buffer.sink.return_()
    await buffer.source.aclose()
    assert (await pull).done


def test_law_9_close_wakes_a_pipeline_of_another_loop() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pipeline = buffer.source.map(abs)
    outcomes: list[object] = []

    async def pull() -> None:
        try:
            outcomes.append(await pipeline.next())
        except ClosedError as error:
            outcomes.append(error)

    thread = threading.Thread(target=asyncio.run, args=(pull(),), kwargs={"debug": True})
    thread.start()
    while buffer.statistics().waiting_consumers != 1:
        thread.join(0.001)
    asyncio.run(asyncio.wait_for(buffer.source.aclose(), 20), debug=True)
    thread.join(20)
    assert not thread.is_alive()
    assert [type(outcome) for outcome in outcomes] == [ClosedError]


async def test_next_nowait_into_a_full_buffer_would_block() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    buffer.sink.next_nowait(1)
    with pytest.raises(WouldBlock) as caught:
        buffer.sink.next_nowait(2)
    assert caught.value.item == 2
    assert await anext(buffer.source) == 1


async def test_law_9_threads_push_into_one_loop() -> None:
    buffer: PushPullBufferObj[tuple[int, int]] = PushPullBufferObj()
    threads, count = 4, 5000

    def produce(number: int) -> None:
        for n in range(count):
            buffer.sink.next_nowait((number, n))

    workers = [threading.Thread(target=produce, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    received: list[list[int]] = [[] for _ in range(threads)]
    for _ in range(threads * count):
        number, n = await anext(buffer.source)
        received[number].append(n)
    for worker in workers:
        await asyncio.to_thread(worker.join)
    assert received == [list(range(count))] * threads


def test_law_9_two_loops_share_a_bounded_buffer() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(4)
    received: list[int] = []

    async def produce() -> None:
        for n in range(2000):
            await buffer.sink.next(n)
        await buffer.sink.return_()

    async def consume() -> None:
        async for n in buffer.source:
            received.append(n)

    producer = threading.Thread(target=lambda: asyncio.run(produce()))
    consumer = threading.Thread(target=lambda: asyncio.run(consume()))
    producer.start()
    consumer.start()
    producer.join(30)
    consumer.join(30)
    assert not producer.is_alive()
    assert not consumer.is_alive()
    assert received == list(range(2000))


def test_law_9_consumers_in_two_loops_share_one_source() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(4)
    received: list[list[int]] = [[], []]

    async def consume(number: int) -> None:
        async for n in buffer.source:
            received[number].append(n)
            await asyncio.sleep(0)

    async def produce() -> None:
        for n in range(1000):
            await buffer.sink.next(n)
        await buffer.sink.return_()

    threads = [threading.Thread(target=asyncio.run, args=(consume(number),)) for number in (0, 1)]
    threads.append(threading.Thread(target=asyncio.run, args=(produce(),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(received[0] + received[1]) == list(range(1000))
    assert all(part == sorted(part) for part in received)


async def test_law_4_closing_the_source_wakes_waiting_pulls() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    pulls = [asyncio.ensure_future(anext(buffer.source)) for _ in range(2)]
    await asyncio.sleep(0)
    await buffer.source.aclose()
    outcomes = await asyncio.gather(*pulls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ClosedError, ClosedError]
    with pytest.raises(StopAsyncIteration):
        await anext(buffer.source)


async def test_law_4_close_reaches_a_pull_that_yielded() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    for _ in range(10_000):
        buffer.sink.next_nowait(1)
        pull = anext(buffer.source)
        try:
            yielded = pull.send(None)
        except StopIteration:
            continue
        assert yielded is None
        break
    else:
        pytest.fail("the budget was never spent")
    await buffer.source.aclose()
    with pytest.raises(ClosedError):
        pull.send(None)


async def test_destructor_may_push_into_the_buffer() -> None:
    buffer: PushPullBufferObj[Any] = PushPullBufferObj()

    class PushesOnDelete:
        def __del__(self) -> None:
            buffer.sink.next_nowait("from the grave")

    await buffer.sink.next(PushesOnDelete())
    await anext(buffer.source)
    assert await anext(buffer.source) == "from the grave"


async def test_cycles_through_a_buffer_are_collected() -> None:
    class Holder:
        buffer: Any

    holder = Holder()
    holder.buffer = PushPullBufferObj()
    await holder.buffer.sink.next(holder)
    dead = weakref.ref(holder)
    del holder
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize(
    ("maxsize", "kind", "described"),
    [
        (0, ValueError, "0 (int)"),
        (-1, ValueError, "-1 (int)"),
        (2**200, ValueError, f"{2**200} (int)"),
        ("3", TypeError, "'3' (str)"),
        (True, TypeError, "True (bool)"),
        (1.5, TypeError, "1.5 (float)"),
    ],
)
def test_law_14_bad_maxsize_is_refused(maxsize: Any, kind: type[Exception], described: str) -> None:
    message = f"maxsize must be a positive integer or None, got {described}"
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        PushPullBufferObj(maxsize)
