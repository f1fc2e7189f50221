"""Pools in front of a service that is down, under a capacity with a `Breaker`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from headrace import (
    AdaptiveLimit,
    Breaker,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Retry,
    SourceIterObj,
    Task,
)
from tests.breaker_support import Answer, broken, now, report, state_of
from tests.pool_support import envelopes
from tests.support import eventually, until


def holds(capacity: CapacitySource, slots: int) -> object:
    return capacity.held == slots


@pytest.mark.virtual
async def test_cancelled_tasks_of_a_pool_have_no_outcome() -> None:
    capacity = broken(Breaker(1, open_for=1))

    async def forever() -> None:
        await asyncio.Event().wait()

    for _ in range(2):
        runner = HierarchicalTaskPoolRunner(SourceIterObj([forever] * 30), capacity)
        async with runner.run_tasks():
            most = 10 if state_of(capacity) == "closed" else 1
            await until(partial(holds, capacity, most))
            # Leaving the block cancels them.
        if state_of(capacity) == "closed":
            await report(capacity, ConnectionError())
            await asyncio.sleep(1)
    assert (capacity.held, state_of(capacity)) == (0, "half_open")
    await report(capacity)


class Service:
    """A service that is down from one time to another, and counts its calls."""

    def __init__(self, down: float, up: float, seconds: float = 0.1) -> None:
        self.down, self.up, self.seconds = down, up, seconds
        self.start = now()
        self.calls: list[float] = []
        self.running = 0

    @property
    def is_down(self) -> bool:
        return self.down <= now() - self.start < self.up

    async def __call__(self, item: int) -> int:
        self.calls.append(now() - self.start)
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if self.is_down:
            raise ConnectionError
        return item

    def made(self, since: float, until: float) -> int:
        """Return the number of calls that began between two times."""
        return sum(since <= time < until for time in self.calls)


@pytest.mark.virtual
async def test_calls_of_an_outage_are_bounded() -> None:
    """60 s without a service cost at most 50 failures, 40 calls in flight and 2 probes: 100 = 5 * 20 calls count."""
    service = Service(10, 70)
    capacity = broken(Breaker(0.5, minimum=20, open_for=30), AdaptiveLimit(40, 40, 40))
    found: list[int] = []
    async with SourceIterObj(range(6000)).map_pool(service, capacity, retry=5) as results:
        async for result in results:
            found.append(result)
            if state_of(capacity) == "half_open":
                assert service.running <= 1
    assert sorted(found) == list(range(6000))
    assert service.made(10, 70) <= 50 + 40 + 2
    assert service.made(70, 1000) < 6000


@pytest.mark.virtual
@pytest.mark.parametrize("cost", [1, 2, {"slots": 1}])
async def test_every_kind_of_cost_is_reported(cost: Any) -> None:
    capacity = broken(Breaker(3, open_for=1000))

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ConnectionError

    tasks = SourceIterObj([Task(fail, cost=cost, queue_timeout=20) for _ in range(50)])
    found = await envelopes(HierarchicalTaskPoolRunner(tasks, capacity))
    assert state_of(capacity) == "open"
    called = [one for one in found if isinstance(one.error, ConnectionError)]
    # Two slots were free again before the third failure.
    assert 3 <= len(called) <= 10 + 2


async def test_tasks_of_threads_are_reported() -> None:
    capacity = CapacitySource(2, breaker=Breaker(3))

    def fail() -> None:
        raise ConnectionError

    tasks = SourceIterObj([Task(fail, thread=True)] * 3)
    await envelopes(HierarchicalTaskPoolRunner(tasks, capacity))
    assert state_of(capacity) == "open"


@pytest.mark.virtual
async def test_breaker_that_is_set_during_a_run_is_reported_to() -> None:
    parent = CapacitySource(10, clock=asyncio.get_running_loop().time)
    capacity = CapacitySource(1, parent)
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)
        if calls == 3:
            parent.breaker = Breaker(2, open_for=100)
        if calls < 7:
            raise ConnectionError

    start = now()
    runner = HierarchicalTaskPoolRunner(SourceIterObj([Task(fail)] * 8), capacity)
    assert len(await envelopes(runner)) == 8
    # The third call began before. Then two failures, one failed probe, and three successes.
    assert now() - start == pytest.approx(8 + 2 * 100, abs=2)


@pytest.mark.virtual
async def test_failures_cost_attempts_and_throttled_probes_none() -> None:
    capacity = broken(Breaker(2, open_for=10), 1)
    answers: list[BaseException | None] = [
        ConnectionError(),
        ConnectionError(),
        Answer(429),
        ConnectionError(),
        None,
    ]

    async def call() -> None:
        error = answers.pop(0)
        if error is not None:
            raise error

    retry = Retry(retries=3)
    tasks = SourceIterObj([Task(call, retry=retry)])
    start = now()
    found = await envelopes(HierarchicalTaskPoolRunner(tasks, capacity))
    assert [(one.error, one.attempt) for one in found] == [(None, 4)]
    assert 20 <= now() - start <= 25
    assert state_of(capacity) == "closed"


@pytest.mark.virtual
async def test_run_can_be_ended_while_it_is_open() -> None:
    capacity = broken(Breaker(1))
    await report(capacity, ConnectionError())

    async def work() -> None:
        raise AssertionError("it must not be called")

    runner = HierarchicalTaskPoolRunner(SourceIterObj([work] * 3), capacity)
    start = now()
    async with runner.run_tasks():
        await until(lambda: capacity.waiting)
        await runner.abort()
    assert now() - start < 1


async def test_pool_recovers_with_a_server_that_was_down() -> None:
    """The server aborts all connections until five probes have failed. Then each record is answered."""
    capacity = CapacitySource(4, breaker=Breaker(3, open_for=0.05))
    is_down = False
    aborted = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal aborted
        line = await reader.readline()
        if is_down:
            aborted += 1
            writer.transport.abort()
            return
        writer.write(line)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def ask(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"%d\n" % number)
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise ConnectionError
        return int(line)

    async def outage() -> float:
        nonlocal is_down
        start, is_down = now(), True
        # Three failures open it, and three other calls are in flight then.
        await eventually(lambda: aborted >= 6 + 5)
        is_down = False
        return now() - start

    found: list[int] = []
    down: asyncio.Task[float] | None = None
    retry = Retry(retries=20, backoff=0.001)
    async with SourceIterObj(range(300)).map_pool(ask, capacity, retry=retry) as results:
        async for result in results:
            found.append(result)
            if len(found) == 50:
                down = asyncio.ensure_future(outage())
    assert sorted(found) == list(range(300))
    assert down is not None
    seconds = await down
    # After the opening it is one probe at a time. Two slots may be used again before the third failure.
    assert aborted <= 6 + 2 + seconds / 0.05 + 1
    assert state_of(capacity) == "closed"
    server.close()
    await server.wait_closed()
