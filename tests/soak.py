"""Everything at once, in rounds that must lose nothing: threads, loops, cancellations, resizes, errors and full buffers.

In a round, threads and the tasks of two event loops create numbered items. The numbers pass through queues, buffers and pipelines
that are too small, consumers that time out, callables that fail, and pools that are left and started again, under a tree
whose limits change. At the end each number has come out once, nothing is held, and nothing waits.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PullObj,
    PushMapObj,
    PushPullBufferObj,
    Retry,
    SourceIterObj,
    Task,
    WaitObject,
)
from headrace.queue import Queue, QueueFull, QueueShutDown
from headrace.testing import shuffled_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

__all__ = ["Round"]

LOOPS = 2
THREADS = 2


class Refused(Exception):
    """The error of a callable that refuses an item."""

    def __init__(self, item: int) -> None:
        super().__init__(item)
        self.item = item


class Round:
    """A round. `seed` determines all of its choices, but not how its threads interleave.

    Each producer makes `each` items.

    `run()` returns when all threads and loops have ended. Then `faults()` yields what is wrong.
    """

    def __init__(self, seed: int, each: int = 60) -> None:
        self.seed = seed
        self.each = each
        rng = random.Random(seed)
        self.root = CapacitySource(rng.choice((2, 4, 8)), name="root")
        self.leaves = [
            CapacitySource(rng.choice((1, 3)), self.root, weight=weight) for weight in (1, 3)
        ]
        self.inbox: Queue[int] = Queue(rng.choice((0, 1, 4)))
        self.jobs: PushPullBufferObj[int] = PushPullBufferObj(
            rng.choice((None, 1, 4)), order=rng.choice(("fifo", "lifo", "priority"))
        )
        self.signal: WaitObject[int] = WaitObject()
        # Appending is atomic, counting is not: threads append to lists, which are counted at the end.
        self.created: list[int] = []
        self.received: list[int] = []
        self.errors: list[BaseException | str] = []
        self.tried: set[int] = set()
        self.numbers = iter(range(10**9))
        self.lock = threading.Lock()
        self.suppliers = {"inbox": THREADS, "jobs": LOOPS * 2}
        self.is_over = threading.Event()

    # The whole round.

    def run(self) -> None:
        """Run the round to its end."""
        loops = [self.thread(self.run_loop, n) for n in range(LOOPS)]
        others = [self.thread(self.produce_in_thread, LOOPS + n) for n in range(THREADS)]
        others.append(self.thread(self.acquire_in_thread, LOOPS + THREADS))
        for thread in loops:
            thread.join()
        self.is_over.set()
        for thread in others:
            thread.join()

    def faults(self) -> Iterator[str]:
        """Yield everything that is wrong after a round."""
        yield from map(repr, self.errors)
        created, received = Counter(self.created), Counter(self.received)
        for number in (created - received).keys() | (received - created).keys():
            yield f"item {number} was created {created[number]} times and received {received[number]} times"
        for node in (self.root, *self.leaves):
            if node.held:
                yield f"{node!r} still holds capacity"
            if waiting := node.snapshot().waiting:
                yield f"{waiting} still wait at {node!r}"
        if len(self.jobs) or self.inbox.qsize():
            yield f"{self.jobs!r} and {self.inbox!r} are not empty"

    def thread(self, target: Callable[[random.Random], None], number: int) -> threading.Thread:
        def guarded() -> None:
            try:
                target(random.Random(self.seed * 10 + number))
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=guarded, name=f"soak {self.seed} {number}")
        thread.start()
        return thread

    def number(self) -> int:
        """Create the next item."""
        with self.lock:
            number = next(self.numbers)
        self.created.append(number)
        return number

    def is_last(self, channel: str) -> bool:
        """Record that a supplier of the channel has ended, and return whether all have."""
        with self.lock:
            self.suppliers[channel] -= 1
            return not self.suppliers[channel]

    # Plain threads.

    def produce_in_thread(self, rng: random.Random) -> None:
        for _ in range(self.each):
            number = self.number()
            while True:
                try:
                    self.inbox.put_sync(number, timeout=rng.choice((0.0001, 1)))
                    break
                except QueueFull:
                    self.signal.resolve(number)
        if self.is_last("inbox"):
            self.inbox.shutdown()

    def acquire_in_thread(self, rng: random.Random) -> None:
        while not self.is_over.is_set():
            try:
                with rng.choice(self.leaves).acquire_sync(timeout=0.001):
                    if rng.random() < 0.1:
                        self.signal.reset()
            except TimeoutError:
                pass

    # Loops.

    def run_loop(self, rng: random.Random) -> None:
        with asyncio.Runner(loop_factory=shuffled_loop(rng.randrange(10**6))) as runner:
            runner.run(self.run_in_loop(rng))

    async def run_in_loop(self, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(repr(context)))
        async with asyncio.TaskGroup() as group:
            for supplier in (self.produce, self.move):
                group.create_task(self.supply(supplier(rng)))
            disturbances = [
                group.create_task(disturb(rng))
                for disturb in (self.acquire, self.acquire, self.resize, self.listen)
            ]
            consumers = [
                group.create_task(consume(rng)) for consume in (self.run_pool, self.pull, self.pull)
            ]
            await asyncio.wait(consumers)
            for disturbance in disturbances:
                disturbance.cancel()
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            self.errors.append(f"leftover tasks: {left}")

    async def supply(self, supplier: Awaitable[None]) -> None:
        await supplier
        if self.is_last("jobs"):
            await self.jobs.sink.return_()

    async def produce(self, rng: random.Random) -> None:
        async def slow(number: int) -> int:
            await pause(rng)
            return number

        sink = PushMapObj(self.jobs.sink, slow)
        for _ in range(self.each):
            number = self.number()
            await with_timeouts(rng, partial(sink.next, number))

    async def move(self, rng: random.Random) -> None:
        """Move items from the queue to the buffer."""
        while True:
            try:
                number = await with_timeouts(rng, self.inbox.get)
            except QueueShutDown:
                return
            await with_timeouts(rng, partial(self.jobs.sink.next, number))

    async def pull(self, rng: random.Random) -> None:
        """Pull from a pipeline over the buffer and over a generator, with short timeouts."""

        async def generate() -> AsyncIterator[int]:
            for _ in range(self.each):
                await pause(rng)
                yield self.number()

        async def refuse_some(number: int) -> int:
            await pause(rng)
            if number % 17 == 0:
                raise Refused(number)
            return number

        pipeline: PullObj[int] = self.jobs.source.merge(SourceIterObj(generate()).prefetch(1))
        stages: list[Callable[[PullObj[int]], PullObj[int]]] = [
            lambda pipeline: pipeline.map(refuse_some),
            lambda pipeline: pipeline.map(refuse_some, concurrency=3),
            lambda pipeline: pipeline.map(abs),
            lambda pipeline: pipeline.batch(3).flatten(),
            lambda pipeline: pipeline.prefetch(2),
            lambda pipeline: pipeline.dedupe(),
        ]
        for _ in range(rng.randrange(4)):
            pipeline = rng.choice(stages)(pipeline)
        # Not closed before the end, which would close the buffer that others use.
        while True:
            try:
                self.received.append(await with_timeouts(rng, pipeline.__anext__))
            except Refused as error:
                self.received.append(error.item)
            except StopAsyncIteration:
                return

    async def run_pool(self, rng: random.Random) -> None:
        """Run a pool over the buffer: leave it many times and start it again, until its source ends."""

        def work(number: int) -> Any:
            # Recorded at the call: a task that is cancelled later is not called again.
            if number not in self.tried:
                self.received.append(number)
            if number % 13 == 0:
                return number
            if number % 19 == 0 and number not in self.tried:
                self.tried.add(number)
                raise Refused(number)
            return body(number)

        async def body(number: int) -> int:
            await pause(rng)
            if number % 7 == 0:
                raise Refused(number)
            return number

        def task(number: int) -> Task:
            return Task(
                work,
                number,
                key=number,
                priority=number % 3,
                thread=number % 13 == 0,
                timeout=1 if number % 5 == 0 else None,
                retry=Retry(1, on=Refused, backoff=0.0001) if number % 19 == 0 else None,
            )

        runner = HierarchicalTaskPoolRunner(
            self.jobs.source.map(task),
            rng.choice(self.leaves),
            ordered=rng.random() < 0.5,
            lookahead=rng.choice((1, 1, 3)),
            max_buffered=rng.choice((1, 8, 1024)),
        )
        while True:
            try:
                async with asyncio.timeout(rng.choice((None, 0.001, 0.01))):
                    async with runner.run_tasks() as run:
                        async for _ in run:
                            if rng.random() < 0.02:
                                break
                        else:
                            return
            except TimeoutError:
                pass

    async def acquire(self, rng: random.Random) -> None:
        while True:
            leaf = rng.choice(self.leaves)
            try:
                async with asyncio.timeout(rng.choice((None, 0, 0.0002))), leaf.acquire():
                    await pause(rng)
            except TimeoutError:
                pass
            if (lease := leaf.acquire_nowait()) is not None:
                lease.release()
            await pause(rng)

    async def resize(self, rng: random.Random) -> None:
        while True:
            node = rng.choice((self.root, *self.leaves))
            limit = node.limit
            node.resize(rng.choice((1, 2, 5)))
            node.pause()
            try:
                await asyncio.sleep(rng.random() / 2_000)
            finally:
                node.resume()
                node.resize(limit)
            await asyncio.sleep(rng.random() / 500)

    async def listen(self, rng: random.Random) -> None:
        while True:
            await with_timeouts(rng, self.signal.wait)
            await asyncio.sleep(0.0005)


async def pause(rng: random.Random) -> None:
    """Yield to the event loop a few times, or not at all."""
    for _ in range(rng.randrange(3)):
        await asyncio.sleep(0)


async def with_timeouts(rng: random.Random, make_awaitable: Callable[[], Awaitable[Any]]) -> Any:
    """Await under one timeout after another, until a result arrives in time."""
    while True:
        try:
            async with asyncio.timeout(rng.choice((None, 0, 0.0001, 0.001))):
                return await make_awaitable()
        except TimeoutError:
            pass
