"""Guarantees of a pool at scale: tens of thousands of tasks of all kinds, shares over hours, memory over a million.

`make test` runs a tenth of the hundred thousand tasks and of the million. `make soak` sets the factor HEADRACE_SOAK,
which increases them up to the full numbers.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import count, cycle, repeat
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    Final,
    HierarchicalTaskPoolRunner,
    PushPullBufferObj,
    Retry,
    Task,
)
from tests.pool_support import FINAL, INTERMEDIATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tests.pool_support import Envelope

FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))
TASKS = int(min(10_000 * FACTOR, 100_000))
MEMORY_TASKS = int(min(100_000 * FACTOR, 1_000_000))

HOUR = 3600.0


class Fault(Exception):
    """The error of tasks that are meant to fail."""


class TaskFactory:
    """Creates numbered tasks of all kinds, and knows how each must end.


    Each task counts its calls. `ends` has the outcome of its last attempt.
    """

    def __init__(self, rng: random.Random, capacity: CapacitySource, most: int) -> None:
        self.queue: PushPullBufferObj[Any] = PushPullBufferObj()
        self.ends: dict[int, str] = {}
        self.calls: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.running = 0
        self._rng = rng
        self._capacity = capacity
        self._most = most

    def add(self, amount: int) -> None:
        """Add this many tasks to the queue, up to the limit."""
        for number in range(len(self.ends), min(len(self.ends) + amount, self._most)):
            kind = self._rng.choice(list(KINDS))
            self.ends[number], self.attempts[number] = KINDS[kind], 1
            self.queue.sink.next_nowait(self._task(kind, number))

    def _task(self, kind: str, number: int) -> Task:
        work = getattr(self, kind)
        options: dict[str, Any] = {"key": number, "cost": self._rng.choice((1, 1, 1, 2, 5))}
        if kind == "overruns":
            options["timeout"] = HOUR / 2
        elif kind == "recovers":
            self.attempts[number] = 3
            options["retry"] = Retry(2, backoff=60, random=self._rng)
        return Task(work, number, self._rng.randrange(3), **options)

    def _enter(self, number: int) -> None:
        self.calls[number] += 1
        self.running += 1
        assert self.running <= self._capacity.held <= self._capacity.limit

    async def _work(self, number: int, iterations: int) -> None:
        self._enter(number)
        try:
            for _ in range(iterations):
                await asyncio.sleep(0)
        finally:
            self.running -= 1

    # The kinds of tasks.

    async def returns(self, number: int, iterations: int) -> int:
        await self._work(number, iterations)
        return number

    def is_plain(self, number: int, _: int) -> int:
        self._enter(number)
        self.running -= 1
        return number

    async def raises(self, number: int, iterations: int) -> None:
        await self._work(number, iterations)
        raise Fault(number)

    async def hangs(self, number: int, _: int) -> int:
        self._enter(number)
        try:
            await asyncio.sleep(HOUR)
        finally:
            self.running -= 1
        return number

    async def overruns(self, number: int, iterations: int) -> None:
        await self.hangs(number, iterations)

    async def yields(self, number: int, iterations: int) -> AsyncIterator[int | Final[int]]:
        self._enter(number)
        try:
            for iteration in range(iterations):
                yield iteration
                if iteration % 2:
                    await asyncio.sleep(0)
            yield Final(number)
        finally:
            self.running -= 1

    async def cancels_itself(self, number: int, iterations: int) -> None:
        await self._work(number, iterations)
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    async def raises_cancelled(self, number: int, iterations: int) -> None:
        await self._work(number, iterations)
        raise asyncio.CancelledError

    async def recovers(self, number: int, iterations: int) -> int:
        await self._work(number, iterations)
        if self.calls[number] < 3:
            raise Fault(number)
        return number

    async def spawns(self, number: int, iterations: int) -> int:
        await self._work(number, iterations)
        self.add(20)
        return number


KINDS = {
    "returns": "value",
    "is_plain": "value",
    "raises": "Fault",
    "hangs": "value",
    "overruns": "TimeoutError",
    "yields": "value",
    "cancels_itself": "CancelledError",
    "raises_cancelled": "CancelledError",
    "recovers": "value",
    "spawns": "value",
}


def _end(envelope: Envelope) -> str:
    """Return how a task has ended."""
    if envelope.type is FINAL:
        assert envelope.value == envelope.key
        return "value"
    return type(envelope.error).__name__


@pytest.mark.virtual
@pytest.mark.timeout(60 + 60 * FACTOR)
@pytest.mark.usefixtures("task_path")
@pytest.mark.parametrize("seed", range(3))
async def test_each_called_task_ends_in_one_envelope(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    root = CapacitySource(60)
    capacity = CapacitySource(50, root)
    factory = TaskFactory(rng, capacity, TASKS)
    factory.add(100)
    runner = HierarchicalTaskPoolRunner(factory.queue.source, capacity, max_buffered=200)
    ended: dict[int, str] = {}
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            number: Any = envelope.key
            assert number not in ended, "an envelope after the last one of its task"
            if envelope.type is INTERMEDIATE:
                continue
            ended[number] = _end(envelope)
            assert envelope.attempt == factory.attempts[number]
            if len(ended) == len(factory.ends):
                # No running task will add more.
                factory.add(100)
                if len(ended) == TASKS:
                    await factory.queue.sink.return_()
    assert ended == factory.ends
    assert factory.calls == factory.attempts
    assert len(ended) == TASKS
    assert (root.held, factory.running) == (0, 0)
    assert set(ended.values()) == {"value", "Fault", "TimeoutError", "CancelledError"}


class Shares:
    """Measures the slot-seconds of one runner, up to a moment."""

    def __init__(self, length: Iterator[float]) -> None:
        self.seconds = 0.0
        self._length = length
        self._started: dict[int, float] = {}
        self._numbers = count()

    async def work(self) -> None:
        now = asyncio.get_running_loop().time
        number, start = next(self._numbers), now()
        self._started[number] = start
        try:
            await asyncio.sleep(next(self._length))
        finally:
            del self._started[number]
            self.seconds += now() - start

    def until_now(self) -> float:
        """Return the slot-seconds so far, including those of running tasks."""
        now = asyncio.get_running_loop().time()
        return self.seconds + sum(now - start for start in self._started.values())

    def tasks(self) -> Iterator[Any]:
        while True:
            yield self.work

    def alternate(self) -> Iterator[Any]:
        """Alternate between simple tasks and tasks that need the general path."""
        return cycle([self.work, Task(self.work, timeout=HOUR)])


async def until_ended(
    most: int, shares: Sequence[Shares], runners: list[HierarchicalTaskPoolRunner]
) -> list[float]:
    """Run until this many tasks have ended; return the slot-seconds of each runner."""
    ended = 0
    enough = asyncio.Event()

    async def consume(runner: HierarchicalTaskPoolRunner) -> None:
        nonlocal ended
        async with runner.run_tasks() as progress:
            async for _ in progress:
                ended += 1
                if ended == most:
                    enough.set()

    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consume(runner)) for runner in runners]
        await enough.wait()
        seconds = [share.until_now() for share in shares]
        for consumer in consumers:
            consumer.cancel()
    return seconds


@pytest.mark.virtual
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("task_path")
@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("short first", 20_000),
        ("mixed first", 20_000),
        ("many at once", 20_000),
        ("all at once", 20_000),
        ("in turn", 20_000),
    ],
)
async def test_runners_share_slot_seconds_by_weight(kind: str, most: int) -> None:
    rng = random.Random(kind)

    def short() -> Iterator[float]:
        while True:
            yield rng.uniform(0.1, 3)

    def rounded() -> Iterator[float]:
        # Several tasks end in the same loop iteration, and their slots are freed together.
        while True:
            yield rng.randint(1, 16) / 8

    def constant() -> Iterator[float]:
        return repeat(1.0)

    def mixed() -> Iterator[float]:
        # One task in ten takes a hundred times as long as the others.
        while True:
            yield rng.uniform(5, 50) if rng.random() < 0.1 else rng.uniform(0.05, 0.5)

    parent = CapacitySource(20, clock=asyncio.get_running_loop().time)
    lengths = {
        "short first": [short(), mixed()],
        "mixed first": [mixed(), short()],
        "many at once": [rounded(), rounded()],
        "all at once": [constant(), constant()],
        "in turn": [constant(), constant()],
    }[kind]
    shares = [Shares(length) for length in lengths]
    runners = [
        HierarchicalTaskPoolRunner(
            share.alternate() if kind == "in turn" else share.tasks(),
            CapacitySource(20, parent, weight=weight),
        )
        for share, weight in zip(shares, (1, 3), strict=True)
    ]
    light_share, heavy_share = await until_ended(most, shares, runners)
    assert heavy_share / light_share == pytest.approx(3, rel=0.03)
    assert parent.held == 0


class Failing(Shares):
    """Measures runners of tasks of which a third fails each time and is retried later."""

    retry = Retry(99, on=Fault, backoff=0.125, factor=1, jitter=False)

    def __init__(self, length: Iterator[float], rng: random.Random) -> None:
        super().__init__(length)
        self._rng = rng
        self.failed = 0

    async def fails(self) -> None:
        await self.work()
        if self._rng.random() < 1 / 3:
            self.failed += 1
            raise Fault

    def some(self) -> Iterator[Any]:
        """Yield tasks that may fail and simple ones, half of each."""
        while True:
            yield self.work if self._rng.random() < 1 / 2 else Task(self.fails, retry=self.retry)

    def all(self) -> Iterator[Any]:
        return repeat(Task(self.fails, retry=self.retry))

    def bare(self) -> Iterator[Any]:
        return repeat(self.fails)


@pytest.mark.virtual
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("task_path")
@pytest.mark.parametrize("lengths", ["many at once", "all at once"])
@pytest.mark.parametrize("kind", ["some", "all", "bare"])
async def test_runners_share_by_weight_despite_retries(kind: str, lengths: str) -> None:
    rng = random.Random(f"{kind} {lengths}")

    def rounded() -> Iterator[float]:
        while True:
            yield rng.randint(1, 16) / 8

    parent = CapacitySource(20, clock=asyncio.get_running_loop().time)
    shares = [
        Failing(rounded() if lengths == "many at once" else repeat(1.0), rng) for _ in range(2)
    ]
    runners = [
        HierarchicalTaskPoolRunner(
            getattr(share, kind)(),
            CapacitySource(20, parent, weight=weight),
            retry=share.retry if kind == "bare" else None,
        )
        for share, weight in zip(shares, (1, 3), strict=True)
    ]
    light_share, heavy_share = await until_ended(10_000, shares, runners)
    assert sum(share.failed for share in shares) > 10_000 / (8 if kind == "some" else 3)
    assert heavy_share / light_share == pytest.approx(3, rel=0.03)
    assert parent.held == 0


MEMORY = """
    import asyncio, sys
    from headrace import CapacitySource, Final, HierarchicalTaskPoolRunner, Retry, Task

    kind, total = sys.argv[1], int(sys.argv[2])

    async def work(x):
        await asyncio.sleep(0)
        return x

    async def fails(x):
        raise ValueError(x)

    async def yields(x):
        yield x
        yield Final(x)

    def tasks():
        for x in range(total):
            if kind == "plain":
                yield Task(work, x, key=x)
            elif kind == "fails":
                yield Task(fails, x)
            elif kind == "yields":
                yield Task(yields, x)
            else:
                yield Task(work, x, timeout=60, retry=Retry())

    def resident():
        with open("/proc/self/status") as status:
            [line] = [line for line in status if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    async def main():
        ended = most = early = 0
        runner = HierarchicalTaskPoolRunner(tasks(), CapacitySource(100))
        async with runner.run_tasks() as progress:
            async for envelope in progress:
                if envelope.finished is None:
                    continue
                ended += 1
                if ended % 5_000 == 0:
                    most = max(most, resident())
                if ended == 10_000:
                    early, most = most, 0
        assert ended == total
        print(most - early)

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.timeout(120 + 100 * FACTOR)
@pytest.mark.parametrize("kind", ["plain", "fails", "yields", "long"])
def test_memory_does_not_grow_with_the_task_count(kind: str) -> None:
    """Allow 2 MB of growth from ten thousand tasks to the last: a hundred thousand, and a million in `make soak`."""
    # In its own process, in which nothing else has grown.
    program = [sys.executable, "-c", dedent(MEMORY), kind, str(MEMORY_TASKS)]
    completed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    grown = int(completed.stdout)
    print("grown by", grown)
    assert grown <= 2 << 20
