"""`Breaker`: its configuration, its states, and the outcomes that count. `test_pool_breaker.py` has the tests of pools."""

from __future__ import annotations

import asyncio
import copy
import math
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    Breaker,
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    QuotaCapacitySource,
    Rate,
    SourceIterObj,
    Task,
    WorkerLost,
    explain,
)
from headrace.testing import cancel_everywhere
from tests.breaker_support import Answer, broken, now, report, state_of
from tests.pool_support import envelopes
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from headrace.testing import Outcome


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
