"""Everything at once: threads, loops, cancellations, resizes, errors and full buffers, in rounds that must lose nothing.

In a round, plain threads and tasks of two loops make numbered items; the numbers go through queues, buffers and lines that
are too small, past consumers that lose their patience in the middle, into callables that fail and pools that are left and
begun again, under a tree whose limits change. At its end each number has come out once, nothing is held, nobody waits.
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
    """What a callable says of an item that it does not like."""

    def __init__(self, item: int) -> None:
        super().__init__(item)
        self.item = item


class Round:
    """One round, whose every choice comes out of `seed` (but for what the threads do to each other).
    Each producer makes `each` items.

    `run()` returns when all threads and loops have ended; `faults()` says what is wrong then.
    """

    def __init__(self, seed: int, each: int = 60) -> None:
        self.seed = seed
        self.each = each
        chance = random.Random(seed)
        self.root = CapacitySource(chance.choice((2, 4, 8)), name="root")
        self.leaves = [
            CapacitySource(chance.choice((1, 3)), self.root, weight=weight) for weight in (1, 3)
        ]
        self.inbox: Queue[int] = Queue(chance.choice((0, 1, 4)))
        self.jobs: PushPullBufferObj[int] = PushPullBufferObj(
            chance.choice((None, 1, 4)), order=chance.choice(("fifo", "lifo", "priority"))
        )
        self.bell: WaitObject[int] = WaitObject()
        # Appending is atomic, counting is not: each thread writes down what came, and it is counted at the end.
        self.made: list[int] = []
        self.came: list[int] = []
        self.errors: list[BaseException | str] = []
        self.tried: set[int] = set()
        self.numbers = iter(range(10**9))
        self.lock = threading.Lock()
        self.suppliers = {"inbox": THREADS, "jobs": LOOPS * 2}
        self.is_over = threading.Event()

    # The whole.

    def run(self) -> None:
        """Runs the round to its end."""
        loops = [self.thread(self.run_loop, n) for n in range(LOOPS)]
        others = [self.thread(self.produce_in_thread, LOOPS + n) for n in range(THREADS)]
        others.append(self.thread(self.acquire_in_thread, LOOPS + THREADS))
        for thread in loops:
            thread.join()
        self.is_over.set()
        for thread in others:
            thread.join()

    def faults(self) -> Iterator[str]:
        """What is not as it must be after a round."""
        yield from map(repr, self.errors)
        made, came = Counter(self.made), Counter(self.came)
        for number in (made - came).keys() | (came - made).keys():
            yield f"item {number} was made {made[number]} times and came {came[number]} times"
        for node in (self.root, *self.leaves):
            if node.held:
                yield f"{node!r} still holds"
            if waiting := node.snapshot().waiting:
                yield f"{waiting} wait at {node!r}"
        if len(self.jobs) or self.inbox.qsize():
            yield f"{self.jobs!r} and {self.inbox!r} are not empty"

    def thread(self, target: Callable[[random.Random], None], number: int) -> threading.Thread:
        def whole() -> None:
            try:
                target(random.Random(self.seed * 10 + number))
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=whole, name=f"soak {self.seed} {number}")
        thread.start()
        return thread

    def number(self) -> int:
        """The next item."""
        with self.lock:
            number = next(self.numbers)
        self.made.append(number)
        return number

    def is_last(self, channel: str) -> bool:
        """Whether all who supply the channel have ended, now that one more has."""
        with self.lock:
            self.suppliers[channel] -= 1
            return not self.suppliers[channel]

    # Plain threads.

    def produce_in_thread(self, chance: random.Random) -> None:
        for _ in range(self.each):
            number = self.number()
            while True:
                try:
                    self.inbox.put_sync(number, timeout=chance.choice((0.0001, 1)))
                    break
                except QueueFull:
                    self.bell.resolve(number)
        if self.is_last("inbox"):
            self.inbox.shutdown()

    def acquire_in_thread(self, chance: random.Random) -> None:
        while not self.is_over.is_set():
            try:
                with chance.choice(self.leaves).acquire_sync(timeout=0.001):
                    if chance.random() < 0.1:
                        self.bell.reset()
            except TimeoutError:
                pass

    # Loops.

    def run_loop(self, chance: random.Random) -> None:
        with asyncio.Runner(loop_factory=shuffled_loop(chance.randrange(10**6))) as runner:
            runner.run(self.live(chance))

    async def live(self, chance: random.Random) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(repr(context)))
        async with asyncio.TaskGroup() as group:
            for supplier in (self.produce, self.carry):
                group.create_task(self.supply(supplier(chance)))
            hindrances = [
                group.create_task(hinder(chance))
                for hinder in (self.acquire, self.acquire, self.resize, self.listen)
            ]
            consumers = [
                group.create_task(consume(chance))
                for consume in (self.run_pool, self.pull, self.pull)
            ]
            await asyncio.wait(consumers)
            for hindrance in hindrances:
                hindrance.cancel()
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            self.errors.append(f"tasks are left: {left}")

    async def supply(self, supplier: Awaitable[None]) -> None:
        await supplier
        if self.is_last("jobs"):
            await self.jobs.sink.return_()

    async def produce(self, chance: random.Random) -> None:
        async def slow(number: int) -> int:
            await pause(chance)
            return number

        sink = PushMapObj(self.jobs.sink, slow)
        for _ in range(self.each):
            number = self.number()
            await impatient(chance, partial(sink.next, number))

    async def carry(self, chance: random.Random) -> None:
        """From the queue into the buffer."""
        while True:
            try:
                number = await impatient(chance, self.inbox.get)
            except QueueShutDown:
                return
            await impatient(chance, partial(self.jobs.sink.next, number))

    async def pull(self, chance: random.Random) -> None:
        """A line over the buffer and over numbers of its own, pulled with little patience."""

        async def own() -> AsyncIterator[int]:
            for _ in range(self.each):
                await pause(chance)
                yield self.number()

        async def doubtful(number: int) -> int:
            await pause(chance)
            if number % 17 == 0:
                raise Refused(number)
            return number

        line: PullObj[int] = self.jobs.source.merge(SourceIterObj(own()).prefetch(1))
        stages: list[Callable[[PullObj[int]], PullObj[int]]] = [
            lambda line: line.map(doubtful),
            lambda line: line.map(doubtful, concurrency=3),
            lambda line: line.map(abs),
            lambda line: line.batch(3).flatten(),
            lambda line: line.prefetch(2),
            lambda line: line.dedupe(),
        ]
        for _ in range(chance.randrange(4)):
            line = chance.choice(stages)(line)
        # Not closed before its end: that would close the buffer, which is the others' too.
        while True:
            try:
                self.came.append(await impatient(chance, line.__anext__))
            except Refused as error:
                self.came.append(error.item)
            except StopAsyncIteration:
                return

    async def run_pool(self, chance: random.Random) -> None:
        """A pool over the buffer, left again and again, and begun again until its source ends."""

        def work(number: int) -> Any:
            # Written down when it is called: what is cancelled later has been called, and is not called again.
            if number not in self.tried:
                self.came.append(number)
            if number % 13 == 0:
                return number
            if number % 19 == 0 and number not in self.tried:
                self.tried.add(number)
                raise Refused(number)
            return body(number)

        async def body(number: int) -> int:
            await pause(chance)
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
            chance.choice(self.leaves),
            ordered=chance.random() < 0.5,
            lookahead=chance.choice((1, 1, 3)),
            max_buffered=chance.choice((1, 8, 1024)),
        )
        while True:
            try:
                async with asyncio.timeout(chance.choice((None, 0.001, 0.01))):
                    async with runner.run_tasks() as run:
                        async for _ in run:
                            if chance.random() < 0.02:
                                break
                        else:
                            return
            except TimeoutError:
                pass

    async def acquire(self, chance: random.Random) -> None:
        while True:
            leaf = chance.choice(self.leaves)
            try:
                async with asyncio.timeout(chance.choice((None, 0, 0.0002))), leaf.acquire():
                    await pause(chance)
            except TimeoutError:
                pass
            if (lease := leaf.acquire_nowait()) is not None:
                lease.release()
            await pause(chance)

    async def resize(self, chance: random.Random) -> None:
        while True:
            node = chance.choice((self.root, *self.leaves))
            limit = node.limit
            node.resize(chance.choice((1, 2, 5)))
            node.pause()
            try:
                await asyncio.sleep(chance.random() / 2_000)
            finally:
                node.resume()
                node.resize(limit)
            await asyncio.sleep(chance.random() / 500)

    async def listen(self, chance: random.Random) -> None:
        while True:
            await impatient(chance, self.bell.wait)
            await asyncio.sleep(0.0005)


async def pause(chance: random.Random) -> None:
    """A few turns of the loop, or none."""
    for _ in range(chance.randrange(3)):
        await asyncio.sleep(0)


async def impatient(chance: random.Random, ask: Callable[[], Awaitable[Any]]) -> Any:
    """What is awaited, under one timeout after another until it is there in time."""
    while True:
        try:
            async with asyncio.timeout(chance.choice((None, 0, 0.0001, 0.001))):
                return await ask()
        except TimeoutError:
            pass
