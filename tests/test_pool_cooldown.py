"""Pools whose tasks are throttled (guarantee 19). `test_capacity_cooldown.py` has the tests of the capacity alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AdaptiveLimit,
    CapacitySource,
    ClosedError,
    HierarchicalTaskPoolRunner,
    Retry,
    SourceIterObj,
    Task,
    ThrottledError,
    classify,
)
from headrace.task.failure import Verdict
from tests.pool_support import envelopes, summarize
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Busy(Exception):
    """A throttled answer; without a delay, the server gives none."""

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("429")
        self.delay = delay


class Throttled(Exception):
    """A throttled answer that `headrace.classify` knows."""

    status_code = 429


def verdict(error: Exception) -> Verdict:
    if isinstance(error, Busy):
        return Verdict("throttled", error.delay)
    if isinstance(error, Throttled):
        return classify(error)
    return Verdict("transient")


def now() -> float:
    return asyncio.get_running_loop().time()


class Service:
    """Throttles the calls with the given names once each, and notes all calls with their times."""

    def __init__(self, refused: dict[Any, float | None], seconds: float = 0.1) -> None:
        self.refused = dict(refused)
        self.seconds = seconds
        self.start = now()
        self.calls: list[tuple[Any, float]] = []

    async def __call__(self, name: Any) -> Any:
        self.calls.append((name, round(now() - self.start, 3)))
        if name in self.refused:
            raise Busy(self.refused.pop(name))
        await asyncio.sleep(self.seconds)
        return name

    def tasks(self, names: Any, **options: Any) -> list[Task]:
        return [Task(self, name, **options) for name in names]

    def times(self, name: Any) -> list[float]:
        return [time for called, time in self.calls if called == name]


def make_runner(tasks: Any, capacity: CapacitySource, **options: Any) -> HierarchicalTaskPoolRunner:
    options.setdefault("retry", Retry(0, classify=verdict))
    return HierarchicalTaskPoolRunner(tasks, capacity, **options)


def make_tree(slots: int = 4) -> tuple[CapacitySource, CapacitySource, CapacitySource]:
    """Return a marked node with two children below a root that is not marked."""
    root = CapacitySource(100, clock=asyncio.get_running_loop().time)
    service = CapacitySource(slots, root, name="service", cooldown=True)
    return service, CapacitySource(slots, service), CapacitySource(slots, service)


@pytest.mark.virtual
async def test_law_19_throttled_answer_stops_the_node_and_costs_no_attempt() -> None:
    marked, one, two = make_tree()
    other = CapacitySource(4, marked.parent)
    service = Service({0: 7.0})
    elsewhere = Service({})
    found, same, beside = await asyncio.gather(
        envelopes(make_runner(service.tasks(range(20)), one)),
        envelopes(make_runner(service.tasks(range(100, 120)), two)),
        envelopes(make_runner(elsewhere.tasks(range(300)), other)),
    )
    assert len(found) == len(same) == 20
    assert len(beside) == 300
    assert {envelope.attempt for envelope in [*found, *same]} == {1}
    assert [time for _, time in service.calls if 0 < time < 7] == []
    assert service.times(0)[0] == 0
    # The first call of its run, after that of a sibling perhaps.
    assert next(name for name, time in service.calls if time >= 7 and name < 100) == 0
    assert max(time for _, time in elsewhere.calls) == pytest.approx(7.4)


@pytest.mark.virtual
async def test_law_19_throttled_task_keeps_its_place() -> None:
    capacity = CapacitySource(3, clock=asyncio.get_running_loop().time)
    # All three that run are throttled, in another order than that of the source.
    service = Service({})
    delays = {0: 0.3, 1: 0.2, 2: 0.1}

    async def work(name: int) -> Any:
        if name in delays:
            await asyncio.sleep(delays.pop(name))
            service.calls.append((name, -1))
            raise Busy(5)
        return await service(name)

    tasks = [Task(work, name) for name in range(8)]
    await envelopes(make_runner(tasks, capacity, lookahead=4))
    assert [name for name, time in service.calls if time == -1] == [2, 1, 0]
    again = [name for name, time in service.calls if time >= 0]
    assert again == list(range(8))


@pytest.mark.virtual
async def test_law_19_ordered_run_goes_on_in_order() -> None:
    capacity = CapacitySource(4, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0, 9: 3.0})
    found = await envelopes(make_runner(service.tasks(range(30)), capacity, ordered=True))
    assert summarize(found) == list(range(30))


@pytest.mark.virtual
async def test_law_19_queue_timeout_does_not_run_during_a_cooldown() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0}, seconds=1)
    tasks = service.tasks(range(3), queue_timeout=2.5)
    found = await envelopes(make_runner(tasks, capacity, lookahead=3))
    assert summarize(found) == [0, 1, 2]
    assert service.times(2) == [9]
    # It runs otherwise, and ends a task that waits longer in sum.
    service = Service({0: 7.0}, seconds=1)
    tasks = service.tasks(range(4), queue_timeout=2.5)
    found = await envelopes(make_runner(tasks, capacity, lookahead=4))
    assert summarize(found) == [0, 1, 2, "TimeoutError"] or summarize(found) == [
        0,
        1,
        "TimeoutError",
        2,
    ]


@pytest.mark.virtual
async def test_law_19_too_long_a_delay_ends_the_task() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    service = Service({0: 86_400.0})
    start = now()
    found = await envelopes(make_runner(service.tasks(range(2)), capacity))
    error = next(envelope.error for envelope in found if envelope.task_id == 1)
    assert isinstance(error, ThrottledError)
    assert isinstance(error.__cause__, Busy)
    assert "task 1: the server requires a delay of 86400 s, above max_cooldown=300" in str(error)
    ended = next(envelope.finished for envelope in found if envelope.task_id == 1)
    assert ended is not None
    assert ended - start < 1
    # Others wait for as long as they may.
    assert service.times(1) == [300]
    assert capacity.held == 0


@pytest.mark.virtual
@pytest.mark.parametrize("slots", [1, 4])
async def test_law_19_server_that_stays_closed_ends_the_run(slots: int) -> None:
    capacity = CapacitySource(slots, clock=asyncio.get_running_loop().time)
    start, calls = now(), list[float]()

    async def work() -> None:
        calls.append(now() - start)
        await asyncio.sleep(0.1)
        raise Busy(86_400 - (now() - start))

    found = await envelopes(make_runner([work] * 50, capacity))
    assert [type(envelope.error) for envelope in found] == [ThrottledError] * 50
    # A cooldown of `max_cooldown`, and then only one call for each task that is left.
    assert len(calls) == 50
    assert sum(call < 300 for call in calls) == slots
    assert now() - start <= 310
    assert capacity.held == 0


@pytest.mark.virtual
@pytest.mark.parametrize("delay", [None, 7.0, 0.0])
async def test_law_19_sum_of_delays_is_bounded(delay: float | None) -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise Busy(delay)

    start = now()
    [found] = await envelopes(
        make_runner([work], capacity, max_cooldown=60, retry=Retry(5, classify=verdict))
    )
    assert isinstance(found.error, ThrottledError)
    assert "in sum, above max_cooldown=60" in str(found.error)
    assert found.attempt == 1
    assert now() - start <= 60
    # 0.5 + 1 + 2 + 4 + 8 + 16 = 31.5, and 8 x 7 = 56.
    assert calls == (9 if delay else 7)


@pytest.mark.virtual
async def test_law_19_needs_no_retry_and_reads_known_errors() -> None:
    class TooManyRequests(Exception):
        retry_after = 7

    calls: list[float] = []

    async def work() -> str:
        calls.append(now())
        if len(calls) == 1:
            raise TooManyRequests
        return "done"

    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    [found] = await envelopes(HierarchicalTaskPoolRunner([work], capacity))
    assert (found.value, found.attempt) == ("done", 1)
    assert calls[1] - calls[0] == pytest.approx(7)


@pytest.mark.virtual
@pytest.mark.parametrize("cooldown", [False, None])
async def test_cooldown_can_be_off(cooldown: bool | None) -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0})
    [found] = await envelopes(make_runner(service.tasks([0]), capacity, cooldown=cooldown))
    assert isinstance(found.error, Busy)
    assert capacity.cooling == 0
    # With a `Retry`, the answer costs an attempt and delays only its task.
    service = Service({0: 7.0})
    retry = Retry(1, classify=verdict)
    tasks = service.tasks(range(2))
    both = await envelopes(make_runner(tasks, capacity, cooldown=cooldown, retry=retry))
    assert [(envelope.value, envelope.attempt) for envelope in both] == [(1, 1), (0, 2)]


@pytest.mark.virtual
async def test_throttled_task_that_has_yielded_needs_a_retry() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    calls: list[float] = []

    async def work() -> AsyncIterator[int]:
        calls.append(now())
        yield len(calls)
        if len(calls) == 1:
            raise Busy(7)

    found = await envelopes(make_runner([work], capacity))
    assert summarize(found)[-1] == "Busy"
    assert capacity.cooling == 7
    calls.clear()
    await asyncio.sleep(60)
    found = await envelopes(make_runner([work], capacity, retry=Retry(1, classify=verdict)))
    assert found[-1].error is None
    assert found[-1].attempt == 2
    assert calls[1] - calls[0] == pytest.approx(7)


async def test_law_19_holds_for_threads() -> None:
    capacity = CapacitySource(2)
    left = [Busy(0.05)]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    start = now()
    [found] = await envelopes(make_runner([Task(work, thread=True)], capacity))
    assert (found.value, found.attempt) == ("done", 1)
    assert now() - start >= 0.05


@pytest.mark.virtual
async def test_abort_does_not_wait_for_a_cooldown_and_drain_does() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)

    async def end(finish: Callable[[HierarchicalTaskPoolRunner], Any]) -> tuple[list[Any], float]:
        service = Service({0: 50.0})
        runner = make_runner(service.tasks(range(5)), capacity)
        async with runner.run_tasks() as progress:
            await until(lambda: capacity.cooling > 0)
            assert runner.snapshot().running == 0
            start = now()
            left = await finish(runner)
            found = [envelope async for envelope in progress]
        assert capacity.held == capacity.waiting == 0
        return [summarize(found), left], now() - start

    [found, _], seconds = await end(lambda runner: runner.abort())
    assert (found, seconds) == (["CancelledError"], 0)
    await asyncio.sleep(100)
    [found, left], seconds = await end(lambda runner: runner.drain())
    assert found == [0]
    assert len(left) == 1
    assert seconds == pytest.approx(50.1)


@pytest.mark.virtual
async def test_close_and_resize_during_a_cooldown() -> None:
    loop = asyncio.get_running_loop()
    capacity = CapacitySource(2, clock=loop.time)
    loop.call_later(1, capacity.close)
    found = await envelopes(make_runner(Service({0: 7.0}).tasks(range(3)), capacity))
    assert len(found) == 3
    assert any(isinstance(envelope.error, ClosedError) for envelope in found)
    capacity = CapacitySource(2, clock=loop.time)
    loop.call_later(1, capacity.resize, 1)
    service = Service({0: 7.0})
    found = await envelopes(make_runner(service.tasks(range(3)), capacity))
    assert summarize(found) == [0, 1, 2]
    assert [time for _, time in service.calls] == pytest.approx([0, 7, 7.1, 7.2])


@pytest.mark.virtual
async def test_pause_of_the_runner_during_a_cooldown() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0})
    runner = make_runner(service.tasks(range(3)), capacity)
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.cooling > 0)
        runner.pause()
        await asyncio.sleep(10)
        assert len(service.calls) == 1
        runner.resume()
        found = [envelope async for envelope in progress]
    assert summarize(found) == [0, 1, 2]


@pytest.mark.virtual
async def test_cancel_of_a_throttled_task() -> None:
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0})
    runner = make_runner(service.tasks(range(2)), capacity)
    async with runner.run_tasks() as progress:
        await until(lambda: capacity.cooling > 0)
        assert runner.cancel(1)
        found = [envelope async for envelope in progress]
    assert summarize(found) == ["CancelledError", 1]
    assert len(service.times(0)) == 1


@pytest.mark.virtual
async def test_map_pool_has_a_cooldown() -> None:
    capacity = CapacitySource(2, clock=asyncio.get_running_loop().time)
    service = Service({1: 7.0, 2: 400.0})
    retry = Retry(0, classify=verdict)
    source = SourceIterObj(range(4)).map_pool(service, capacity, ordered=True, retry=retry)
    async with source as results:
        assert [await anext(results) for _ in range(2)] == [0, 1]
        with pytest.raises(ThrottledError):
            await anext(results)
        assert await anext(results) == 3


@pytest.mark.virtual
async def test_capacity_with_its_own_acquire_is_cooled_down_too() -> None:
    class Own(CapacitySource):
        def acquire(self, cost: Any = 1, **options: Any) -> Any:
            return super().acquire(cost, **options)

    capacity = Own(2, clock=asyncio.get_running_loop().time)
    service = Service({0: 7.0, 1: 7.0})
    found = await envelopes(make_runner(service.tasks(range(4)), capacity))
    assert sorted(summarize(found)) == [0, 1, 2, 3]
    assert [time for _, time in service.calls if 0 < time < 7] == []


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("limit", "delay", "most"), [(40, 1, 30), (AdaptiveLimit(10, 1, 100), None, 45)]
)
async def test_rate_limited_service_is_hardly_called_in_vain(
    limit: Any, delay: float | None, most: int
) -> None:
    """A service of 10 calls a second after a burst of 60: few calls are rejected, and its rate is used."""
    loop = asyncio.get_running_loop()
    capacity = CapacitySource(limit, clock=loop.time)
    tokens, at, calls, rejected = 60.0, loop.time(), 0, 0
    start = at

    async def work(name: int) -> int:
        nonlocal tokens, at, calls, rejected
        calls += 1
        tokens, at = min(60.0, tokens + 10 * (loop.time() - at)), loop.time()
        if tokens < 1:
            rejected += 1
            await asyncio.sleep(0.005)
            raise Throttled if delay is None else Busy(delay)
        tokens -= 1
        await asyncio.sleep(0.05 + 0.15 * (name * 7919 % 100) / 100)
        return name

    tasks = [Task(work, name) for name in range(600)]
    found = await envelopes(make_runner(tasks, capacity))
    assert sorted(summarize(found)) == list(range(600))
    assert rejected <= most
    assert loop.time() - start <= 54 / 0.9


@pytest.mark.virtual
@pytest.mark.parametrize(("start", "minimum"), [(10, 1), (100, 1), (20, 20)])
async def test_server_that_throttles_each_call_is_left_alone(start: int, minimum: int) -> None:
    loop = asyncio.get_running_loop()
    capacity = CapacitySource(AdaptiveLimit(start, minimum, 100), clock=loop.time)
    calls: list[float] = []

    async def call() -> None:
        calls.append(now())
        await asyncio.sleep(0.005)
        raise Throttled

    began = now()
    tasks = SourceIterObj([Task(call) for _ in range(200)])
    async with HierarchicalTaskPoolRunner(tasks, capacity).run_tasks() as events:
        first = await anext(events)
        seconds_to_first = now() - began
        assert type(first.error).__name__ == "ThrottledError"
        assert first.attempt == 1
    # First the limit falls, a tenth for each event. Then the node backs off, longer each time.
    assert capacity.limit == minimum
    seconds = [round(call - began) for call in calls]
    assert sum(second <= 5 for second in seconds) <= 11 * start
    assert sum(second > 5 for second in seconds) <= 20 + 2 * minimum
    assert seconds_to_first <= 300


@pytest.mark.virtual
async def test_delay_of_the_server_cools_down_also_with_an_adaptive_limit() -> None:
    class Later(Throttled):
        retry_after = 7

    capacity = CapacitySource(AdaptiveLimit(10, 1, 100), clock=asyncio.get_running_loop().time)
    start, calls = now(), list[float]()

    async def call() -> None:
        calls.append(now() - start)
        is_first = len(calls) == 1
        await asyncio.sleep(0.1)
        if is_first:
            raise Later

    async with HierarchicalTaskPoolRunner([call] * 50, capacity).run_tasks() as events:
        assert [event.attempt async for event in events] == [1] * 50
    assert [time for time in calls if 0.11 < time < 7] == []
    assert capacity.limit == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cooldown": 1}, "cooldown must be True or False, got 1"),
        ({"max_cooldown": 0}, "max_cooldown must be positive, got 0"),
        ({"max_cooldown": "1"}, "max_cooldown must be a number"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HierarchicalTaskPoolRunner([], CapacitySource(1), **options)
