"""`Breaker`: its configuration, its states, the outcomes that count, and pools in front of a service that is down."""

from __future__ import annotations

import asyncio
import copy
import math
import random
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AdaptiveLimit,
    Breaker,
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    QuotaCapacitySource,
    Rate,
    Retry,
    SourceIterObj,
    Task,
    WorkerLost,
    explain,
)
from headrace.testing import cancel_everywhere
from tests.pool_support import envelopes
from tests.support import eventually, until, wrong

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from headrace.testing import Outcome


class Answer(Exception):
    """An answer of a service that is an error."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status_code = status


def now() -> float:
    return asyncio.get_running_loop().time()


def broken(breaker: Breaker, limit: Any = 10, **options: Any) -> CapacitySource:
    clock = asyncio.get_running_loop().time
    return CapacitySource(limit, breaker=breaker, clock=clock, **options)


def state_of(capacity: CapacitySource) -> str | None:
    """Return the state of the breaker. Type checkers assume that an attribute stays as it is."""
    return capacity.breaker_state


def is_held(capacity: CapacitySource, amount: float) -> bool:
    """Return whether this amount is held."""
    return bool(capacity.held == amount)


async def report(capacity: CapacitySource, error: BaseException | None = None) -> None:
    """Make a call with this outcome."""
    async with capacity.acquire() as lease:
        lease.report(error=error)


# Configuration.


def test_configuration_is_a_frozen_value() -> None:
    breaker = Breaker(failures=5)
    expected = "Breaker(failures=5, minimum=20, window=30.0, open_for=30.0, probes=1)"
    assert repr(breaker) == expected
    assert breaker == Breaker(5) != Breaker(6)
    assert copy.deepcopy(breaker) == breaker
    assert hash(breaker) == hash(Breaker(5))
    with pytest.raises(AttributeError):
        breaker.probes = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failures": "5"}, TypeError, r"failures must be a number, got '5' \(str\)"),
        ({"failures": True}, TypeError, "failures must be a number, got True"),
        ({"failures": 0}, ValueError, "failures must be a number of calls from 1 .* got 0"),
        ({"failures": 10**7}, ValueError, "failures must be a number of calls .* got 10000000"),
        ({"failures": 5.0}, ValueError, "failures must be a share .* as an int, got 5.0"),
        ({"failures": 0.0}, ValueError, "failures must be a share above 0 .* got 0.0"),
        ({"failures": math.nan}, ValueError, "failures must be finite, got nan"),
        ({"minimum": 0}, ValueError, "minimum must be at least 1, got 0"),
        ({"minimum": 2.0}, TypeError, "minimum must be an integer, got 2.0"),
        ({"minimum": 10**7}, ValueError, r"minimum must be at most 10\*\*6, got 10000000"),
        ({"probes": 0}, ValueError, "probes must be at least 1, got 0"),
        ({"probes": None}, TypeError, "probes must be an integer, got None"),
        ({"window": 0}, ValueError, "window must be from a microsecond to a year, got 0"),
        ({"window": "1"}, TypeError, "window must be a number"),
        ({"open_for": math.inf}, ValueError, "open_for must be finite, got inf"),
        ({"open_for": -1}, ValueError, "open_for must not be negative, got -1"),
        ({"open_for": 10**9}, ValueError, "open_for must be from a microsecond to a year"),
    ],
)
def test_law_14_bad_configuration_is_refused(options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Breaker(**options)


def test_law_14_only_a_breaker_is_accepted() -> None:
    with pytest.raises(TypeError, match=r"breaker must be a Breaker or None, got 0\.5"):
        CapacitySource(1, breaker=wrong(0.5))
    capacity = QuotaCapacitySource(Rate(5), breaker=Breaker(3))
    assert (capacity.breaker, state_of(capacity)) == (Breaker(3), "closed")
    with pytest.raises(TypeError, match="breaker must be a Breaker or None, got True"):
        capacity.breaker = wrong(True)
    assert capacity.breaker == Breaker(3)
    capacity.close()
    with pytest.raises(ClosedError):
        capacity.breaker = None


# States.


@pytest.mark.virtual
async def test_states_follow_failures_time_and_probes() -> None:
    capacity = broken(Breaker(2, open_for=30, probes=2))
    assert repr(capacity) == "<CapacitySource: 0 of 10 slots, open>"
    await report(capacity, ConnectionError())
    await report(capacity)
    await report(capacity, ConnectionError())
    assert state_of(capacity) == "closed"
    await report(capacity, ConnectionError())
    assert state_of(capacity) == "open"
    await asyncio.sleep(3)
    state = capacity.snapshot().breaker
    assert state is not None
    assert (state.state, state.since, state.left, state.probes) == ("open", 3, 27, 0)
    assert "breaker open since 3 s, 27 s left" in repr(capacity)
    # It is no cooldown.
    assert capacity.cooling == 0
    assert capacity.acquire_nowait() is None
    await asyncio.sleep(27)
    state = capacity.snapshot().breaker
    assert state is not None
    assert (state.state, state.left, state.probes) == ("half_open", 0, 2)
    one, two = capacity.acquire_nowait(), capacity.acquire_nowait()
    assert one is not None
    assert two is not None
    assert capacity.acquire_nowait() is None
    one.report()
    one.release()
    # Two successes close it, and no third probe is made for them.
    assert capacity.acquire_nowait() is None
    two.report(error=Answer(503))
    two.release()
    assert state_of(capacity) == "open"
    await asyncio.sleep(30)
    await report(capacity)
    await report(capacity)
    assert state_of(capacity) == "closed"
    await asyncio.sleep(30)
    async with capacity.acquire(10):
        pass


@pytest.mark.virtual
async def test_share_counts_the_latest_calls() -> None:
    capacity = broken(Breaker(0.5, minimum=10, window=60))
    for _ in range(1000):
        await report(capacity)
    state = capacity.snapshot().breaker
    assert state is not None
    assert 40 < state.calls <= 50
    failures = 0
    while state_of(capacity) == "closed":
        await report(capacity, ConnectionError())
        failures += 1
    assert failures <= 25
    capacity.breaker = Breaker(0.5, minimum=10, window=60)
    for _ in range(9):
        await report(capacity, ConnectionError())
    await asyncio.sleep(60)
    await report(capacity, ConnectionError())
    assert state_of(capacity) == "closed"


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ConnectionError(), True),
        (TimeoutError(), True),
        (ValueError("a bad answer"), True),
        (Answer(500), True),
        (Answer(401), True),
        (Answer(404), False),
        (TypeError(), False),
        (None, False),
        (Answer(429), None),
        (asyncio.CancelledError(), None),
        (WorkerLost("gone"), None),
    ],
)
async def test_verdict_decides_what_counts(error: Any, counts: bool | None) -> None:
    capacity = broken(Breaker(2))
    await report(capacity, ConnectionError())
    await report(capacity, error)
    found = capacity.snapshot().breaker
    assert found is not None
    assert (state_of(capacity) == "open") is (counts is True)
    if counts is not True:
        assert found.failures == (0 if counts is False else 1)


@pytest.mark.virtual
async def test_siblings_continue_and_waiters_keep_their_places() -> None:
    root = CapacitySource(20, clock=asyncio.get_running_loop().time)
    api = CapacitySource(10, root, breaker=Breaker(1, open_for=7))
    leaf, other = CapacitySource(10, api), CapacitySource(10, root)
    await report(leaf, ConnectionError())
    start, order = now(), list[int]()

    async def use(number: int) -> None:
        async with leaf.acquire() as lease:
            order.append(number)
            assert now() - start >= 7
            await asyncio.sleep(0.1)
            lease.report()

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(use(number))
        for _ in range(69):
            async with other.acquire(10):
                await asyncio.sleep(0.1)
                assert (leaf.held, state_of(api)) == (0, "open")
    assert order == list(range(30))


@pytest.mark.virtual
async def test_setting_it_closes_it() -> None:
    capacity = broken(Breaker(1))
    late = await capacity.acquire()
    await report(capacity, ConnectionError())
    waiting = asyncio.ensure_future(capacity.acquire())
    await asyncio.sleep(0)
    assert state_of(capacity) == "open"
    capacity.breaker = capacity.breaker
    assert state_of(capacity) == "closed"
    (await waiting).release()
    # The outcome of a call from before.
    late.report(error=ConnectionError())
    late.release()
    await report(capacity, ConnectionError())
    assert state_of(capacity) == "open"
    capacity.breaker = None
    assert (state_of(capacity), capacity.snapshot().breaker) == (None, None)
    await report(capacity, ConnectionError())
    assert now() == pytest.approx(0, abs=1)


@pytest.mark.virtual
async def test_wait_may_be_bounded_while_it_is_open() -> None:
    capacity = broken(Breaker(1))
    await report(capacity, ConnectionError())
    start = now()
    with pytest.raises(TimeoutError):
        await capacity.acquire(timeout=5)
    assert now() - start == pytest.approx(5)

    async def work() -> None:
        raise AssertionError("it must not be called")

    tasks = SourceIterObj([Task(work, queue_timeout=5) for _ in range(3)])
    found = await envelopes(HierarchicalTaskPoolRunner(tasks, capacity))
    assert [type(one.error) for one in found] == [TimeoutError] * 3
    # They are pulled one after another.
    assert now() - start == pytest.approx(20, abs=0.1)


@pytest.mark.virtual
async def test_explain_names_it() -> None:
    capacity = broken(Breaker(1), name="probed")
    await report(capacity, ConnectionError())
    await asyncio.sleep(3)
    assert "capacity 'probed': slots: 0 of 10 held; grants nothing for 27.0 s" in explain()
    assert "breaker open since 3 s, 27 s left" in explain()
    await asyncio.sleep(27)
    probe = await capacity.acquire()
    waiting = asyncio.ensure_future(capacity.acquire())
    await asyncio.sleep(1)
    text = explain()
    assert "breaker half open since 31 s" in text
    assert "lacks a probe of the breaker of capacity 'probed'" in text
    probe.report()
    probe.release()
    (await waiting).release()
    assert "'probed'" not in explain()


# Cancellation, threads and event loops.


@pytest.mark.virtual
async def test_law_8_cancelled_probe_frees_its_place() -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        capacity = broken(Breaker(1, open_for=1))
        await report(capacity, ConnectionError())

        async def work() -> None:
            async with capacity.acquire():
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        outcome = yield work()
        assert outcome.cancelled or outcome.error is None
        await asyncio.sleep(1)
        assert (capacity.held, state_of(capacity)) == (0, "half_open")
        await report(capacity)
        assert state_of(capacity) == "closed"

    assert await cancel_everywhere(case) > 0


@pytest.mark.virtual
async def test_cancelled_tasks_of_a_pool_have_no_outcome() -> None:
    capacity = broken(Breaker(1, open_for=1))

    async def forever() -> None:
        await asyncio.Event().wait()

    for _ in range(2):
        runner = HierarchicalTaskPoolRunner(SourceIterObj([forever] * 30), capacity)
        async with runner.run_tasks():
            most = 10 if state_of(capacity) == "closed" else 1
            await until(partial(is_held, capacity, most))
            # Leaving the block cancels them.
        if state_of(capacity) == "closed":
            await report(capacity, ConnectionError())
            await asyncio.sleep(1)
    assert (capacity.held, state_of(capacity)) == (0, "half_open")
    await report(capacity)


def test_law_9_threads_and_event_loops_report() -> None:
    clock = [0.0]
    capacity = CapacitySource(8, breaker=Breaker(1, probes=3), clock=lambda: clock[0])
    together = threading.Barrier(4)
    most = 0

    def use(seed: int) -> None:
        async def main() -> None:
            nonlocal most
            rng = random.Random(seed)
            for _ in range(300):
                if (lease := capacity.acquire_nowait()) is None:
                    clock[0] += 11.0
                    continue
                with lease:
                    state = capacity.snapshot()
                    assert state.breaker is not None
                    if state.breaker.state == "half_open":
                        most = max(most, state.leases)
                    if rng.random() < 0.9:
                        lease.report(error=ConnectionError() if rng.random() < 0.3 else None)
                    await asyncio.sleep(0)

        together.wait()
        asyncio.run(main())

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capacity.held == 0
    # Those of before the opening may still be held.
    assert most <= 4
    clock[0] += 1000
    while state_of(capacity) != "closed":
        lease = capacity.acquire_nowait()
        assert lease is not None
        with lease:
            lease.report()


# Pools.


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
