"""The promises of a pool at size: every kind of task by the ten thousand, shares over hours, memory over a million.

`make test` runs a tenth of the hundred thousand tasks and of the million; `make soak` sets HEADRACE_SOAK to the
factor by which that grows, up to the whole.
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
    """What a task raises that is to raise."""


class Zoo:
    """Makes tasks of all kinds, by number, and knows how each has to end.

    Each notes its calls; the last attempt of each ends as `ends` says.
    """

    def __init__(self, chance: random.Random, capacity: CapacitySource, most: int) -> None:
        self.queue: PushPullBufferObj[Any] = PushPullBufferObj()
        self.ends: dict[int, str] = {}
        self.calls: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.running = 0
        self._chance = chance
        self._capacity = capacity
        self._most = most

    def add(self, wanted: int) -> None:
        """Puts so many more tasks into the queue, if there may be as many."""
        for number in range(len(self.ends), min(len(self.ends) + wanted, self._most)):
            kind = self._chance.choice(list(KINDS))
            self.ends[number], self.attempts[number] = KINDS[kind], 1
            self.queue.sink.next_nowait(self._task(kind, number))

    def _task(self, kind: str, number: int) -> Task:
        work = getattr(self, kind)
        terms: dict[str, Any] = {"key": number, "cost": self._chance.choice((1, 1, 1, 2, 5))}
        if kind == "overruns":
            terms["timeout"] = HOUR / 2
        elif kind == "recovers":
            self.attempts[number] = 3
            terms["retry"] = Retry(2, backoff=60, random=self._chance)
        return Task(work, number, self._chance.randrange(3), **terms)

    def _enter(self, number: int) -> None:
        self.calls[number] += 1
        self.running += 1
        assert self.running <= self._capacity.held <= self._capacity.limit

    async def _turns(self, number: int, turns: int) -> None:
        self._enter(number)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            self.running -= 1

    # The kinds.

    async def returns(self, number: int, turns: int) -> int:
        await self._turns(number, turns)
        return number

    def is_plain(self, number: int, _: int) -> int:
        self._enter(number)
        self.running -= 1
        return number

    async def raises(self, number: int, turns: int) -> None:
        await self._turns(number, turns)
        raise Fault(number)

    async def hangs(self, number: int, _: int) -> int:
        self._enter(number)
        try:
            await asyncio.sleep(HOUR)
        finally:
            self.running -= 1
        return number

    async def overruns(self, number: int, turns: int) -> None:
        await self.hangs(number, turns)

    async def yields(self, number: int, turns: int) -> AsyncIterator[int | Final[int]]:
        self._enter(number)
        try:
            for turn in range(turns):
                yield turn
                if turn % 2:
                    await asyncio.sleep(0)
            yield Final(number)
        finally:
            self.running -= 1

    async def cancels_itself(self, number: int, turns: int) -> None:
        await self._turns(number, turns)
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    async def raises_cancelled(self, number: int, turns: int) -> None:
        await self._turns(number, turns)
        raise asyncio.CancelledError

    async def recovers(self, number: int, turns: int) -> int:
        await self._turns(number, turns)
        if self.calls[number] < 3:
            raise Fault(number)
        return number

    async def spawns(self, number: int, turns: int) -> int:
        await self._turns(number, turns)
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
    """How a task has ended."""
    if envelope.type is FINAL:
        assert envelope.value == envelope.key
        return "value"
    return type(envelope.error).__name__


@pytest.mark.virtual
@pytest.mark.timeout(60 + 60 * FACTOR)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(3))
async def test_each_task_that_is_called_ends_in_one_envelope(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    root = CapacitySource(60)
    capacity = CapacitySource(50, root)
    zoo = Zoo(chance, capacity, TASKS)
    zoo.add(100)
    runner = HierarchicalTaskPoolRunner(zoo.queue.source, capacity, max_buffered=200)
    ended: dict[int, str] = {}
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            number: Any = envelope.key
            assert number not in ended, "something after its last envelope"
            if envelope.type is INTERMEDIATE:
                continue
            ended[number] = _end(envelope)
            assert envelope.attempt == zoo.attempts[number]
            if len(ended) == len(zoo.ends):
                # Nobody is left who would find more.
                zoo.add(100)
                if len(ended) == TASKS:
                    await zoo.queue.sink.return_()
    assert ended == zoo.ends
    assert zoo.calls == zoo.attempts
    assert len(ended) == TASKS
    assert (root.held, zoo.running) == (0, 0)
    assert set(ended.values()) == {"value", "Fault", "TimeoutError", "CancelledError"}


class Shares:
    """Counts the slot-seconds of one runner, up to a moment."""

    def __init__(self, length: Iterator[float]) -> None:
        self.seconds = 0.0
        self._length = length
        self._begun: dict[int, float] = {}
        self._numbers = count()

    async def work(self) -> None:
        now = asyncio.get_running_loop().time
        number, begun = next(self._numbers), now()
        self._begun[number] = begun
        try:
            await asyncio.sleep(next(self._length))
        finally:
            del self._begun[number]
            self.seconds += now() - begun

    def until_now(self) -> float:
        """Those of what runs still are counted too."""
        now = asyncio.get_running_loop().time()
        return self.seconds + sum(now - begun for begun in self._begun.values())

    def tasks(self) -> Iterator[Any]:
        while True:
            yield self.work

    def in_turn(self) -> Iterator[Any]:
        """Plain ones, and such as go the long way."""
        return cycle([self.work, Task(self.work, timeout=HOUR)])


async def until_ended(
    most: int, shares: Sequence[Shares], runners: list[HierarchicalTaskPoolRunner]
) -> list[float]:
    """Runs them until so many tasks have ended; the slot-seconds of each."""
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
@pytest.mark.usefixtures("way")
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
async def test_runners_share_slot_seconds_by_their_weights(kind: str, most: int) -> None:
    chance = random.Random(kind)

    def short() -> Iterator[float]:
        while True:
            yield chance.uniform(0.1, 3)

    def rounded() -> Iterator[float]:
        # Several end in the same turn, and what they free is there at once.
        while True:
            yield chance.randint(1, 16) / 8

    def same() -> Iterator[float]:
        return repeat(1.0)

    def mixed() -> Iterator[float]:
        # One in ten takes a hundred times as long as the others.
        while True:
            yield chance.uniform(5, 50) if chance.random() < 0.1 else chance.uniform(0.05, 0.5)

    parent = CapacitySource(20, clock=asyncio.get_running_loop().time)
    lengths = {
        "short first": [short(), mixed()],
        "mixed first": [mixed(), short()],
        "many at once": [rounded(), rounded()],
        "all at once": [same(), same()],
        "in turn": [same(), same()],
    }[kind]
    shares = [Shares(length) for length in lengths]
    runners = [
        HierarchicalTaskPoolRunner(
            share.in_turn() if kind == "in turn" else share.tasks(),
            CapacitySource(20, parent, weight=weight),
        )
        for share, weight in zip(shares, (1, 3), strict=True)
    ]
    light, heavy = await until_ended(most, shares, runners)
    assert heavy / light == pytest.approx(3, rel=0.03)
    assert parent.held == 0


class Failing(Shares):
    """The same, of tasks of which a third fails at a time, and is called again a little later."""

    retry = Retry(99, on=Fault, backoff=0.125, factor=1, jitter=False)

    def __init__(self, length: Iterator[float], chance: random.Random) -> None:
        super().__init__(length)
        self._chance = chance
        self.failed = 0

    async def fails(self) -> None:
        await self.work()
        if self._chance.random() < 1 / 3:
            self.failed += 1
            raise Fault

    def some(self) -> Iterator[Any]:
        """Of those that may fail a half, among plain ones."""
        while True:
            yield self.work if self._chance.random() < 1 / 2 else Task(self.fails, retry=self.retry)

    def all(self) -> Iterator[Any]:
        return repeat(Task(self.fails, retry=self.retry))

    def bare(self) -> Iterator[Any]:
        return repeat(self.fails)


@pytest.mark.virtual
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("lengths", ["many at once", "all at once"])
@pytest.mark.parametrize("kind", ["some", "all", "bare"])
async def test_runners_share_by_their_weights_also_where_many_tasks_are_called_again(
    kind: str, lengths: str
) -> None:
    chance = random.Random(f"{kind} {lengths}")

    def rounded() -> Iterator[float]:
        while True:
            yield chance.randint(1, 16) / 8

    parent = CapacitySource(20, clock=asyncio.get_running_loop().time)
    shares = [
        Failing(rounded() if lengths == "many at once" else repeat(1.0), chance) for _ in range(2)
    ]
    runners = [
        HierarchicalTaskPoolRunner(
            getattr(share, kind)(),
            CapacitySource(20, parent, weight=weight),
            retry=share.retry if kind == "bare" else None,
        )
        for share, weight in zip(shares, (1, 3), strict=True)
    ]
    light, heavy = await until_ended(10_000, shares, runners)
    assert sum(share.failed for share in shares) > 10_000 / (8 if kind == "some" else 3)
    assert heavy / light == pytest.approx(3, rel=0.03)
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
def test_memory_does_not_grow_with_the_number_of_tasks(kind: str) -> None:
    """At most 2 MB from ten thousand tasks to the last: a hundred thousand, and a million in `make soak`."""
    # A process of its own, that nothing else has grown in.
    program = [sys.executable, "-c", dedent(MEMORY), kind, str(MEMORY_TASKS)]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    grown = int(ran.stdout)
    print("grown by", grown)
    assert grown <= 2 << 20
