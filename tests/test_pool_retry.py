from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, Task
from headrace.task.failure import Verdict
from tests.pool_support import envelopes, one, pool, quiet, summarize
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Flaky:
    """Fails the given number of times, then succeeds; records the times of its calls."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures_left = failures
        self.error = ValueError("no") if error is None else error
        self.called: list[float] = []

    async def __call__(self) -> str:
        self.called.append(asyncio.get_running_loop().time())
        if self.failures_left:
            self.failures_left -= 1
            raise self.error
        return "done"

    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.called, self.called[1:], strict=False)]


def make_retry(**options: Any) -> Retry:
    retry_options: dict[str, Any] = {"backoff": 1, "jitter": False, **options}
    return Retry(**retry_options)


@pytest.mark.virtual
async def test_task_is_retried_until_it_succeeds() -> None:
    work = Flaky(2)
    [found] = await envelopes(pool([work], retry=make_retry(retries=3)))
    assert (found.value, found.attempt) == ("done", 3)
    assert work.gaps() == pytest.approx([1, 2])
    assert found.started == work.called[-1]
    assert found.queued == work.called[0]


@pytest.mark.virtual
async def test_last_error_is_reported() -> None:
    work = Flaky(5)
    [found] = await envelopes(pool([work], retry=make_retry(retries=2)))
    assert found.error is work.error
    assert (found.attempt, len(work.called)) == (3, 3)


@pytest.mark.virtual
async def test_other_tasks_finish_while_one_backs_off() -> None:
    capacity = CapacitySource(1)
    work = Flaky(1)
    tasks = [Task(work, retry=make_retry()), *[Task(asyncio.sleep, 0.005)] * 100]
    found = await envelopes(HierarchicalTaskPoolRunner(tasks, capacity))
    assert [envelope.task_id for envelope in found] == [*range(2, 102), 1]
    assert work.gaps() == pytest.approx([1])


@pytest.mark.virtual
async def test_back_off_holds_no_capacity() -> None:
    capacity = CapacitySource(1)
    runner = HierarchicalTaskPoolRunner([Flaky(1)], capacity, retry=make_retry(backoff=5))
    async with runner.run_tasks() as progress:
        await asyncio.sleep(1)
        snapshot = runner.snapshot()
        assert (snapshot.backing_off, snapshot.running, capacity.held) == (1, 0, 0)
        assert summarize([envelope async for envelope in progress]) == ["done"]


@pytest.mark.virtual
async def test_backing_off_tasks_are_bounded() -> None:
    called: set[int] = set()

    async def work(index: int) -> None:
        called.add(index)
        raise ValueError

    tasks = [Task(work, index) for index in range(100)]
    retry = make_retry(retries=1, backoff=10)
    runner = pool(tasks, 4, retry=retry, max_buffered=7)
    async with runner.run_tasks() as progress:
        await asyncio.sleep(1)
        # At most seven, and the tasks that ran when the seventh failed.
        assert 7 <= runner.snapshot().backing_off == len(called) < 7 + 4
        assert len([envelope async for envelope in progress]) == 100


@pytest.mark.virtual
async def test_timeout_can_be_retried() -> None:
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(100)
        return calls

    found = await envelopes(pool([work], timeout=2, retry=make_retry(on=TimeoutError)))
    assert summarize(found) == [2]


async def test_cancelled_task_is_not_retried() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    retry = Retry(on=BaseException, backoff=0)
    [found] = await envelopes(pool([work], retry=retry))
    assert isinstance(found.error, asyncio.CancelledError)
    assert found.attempt == 1


@pytest.mark.parametrize(
    ("on", "attempts"),
    [
        (ValueError, 2),
        ((KeyError, ValueError), 2),
        (KeyError, 1),
        (lambda error: "no" in str(error), 2),
        (lambda error: "yes" in str(error), 1),
    ],
)
async def test_only_matching_errors_are_retried(on: Any, attempts: int) -> None:
    [found] = await envelopes(pool([Flaky(1)], retry=Retry(on=on, backoff=0)))
    assert found.attempt == attempts


async def test_task_can_have_its_own_retry() -> None:
    tasks = [Flaky(1), Task(Flaky(1), retry=Retry(retries=0))]
    runner = pool(tasks, 1, retry=Retry(backoff=0))
    assert sorted(summarize(await envelopes(runner))) == ["ValueError", "done"]


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_retries_counts_calls_after_the_first(retries: int) -> None:
    for task_retry, runner_retry in [
        (Retry(retries, backoff=0), None),
        (None, Retry(retries, backoff=0)),
    ]:
        work = Flaky(9)
        [found] = await envelopes(pool([Task(work, retry=task_retry)], retry=runner_retry))
        assert (found.attempt, len(work.called)) == (1 + retries, 1 + retries)


@pytest.mark.virtual
@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_retry_can_be_a_number(retries: int) -> None:
    for task_retry, runner_retry in [(retries, None), (None, retries)]:
        work = Flaky(9)
        [found] = await envelopes(pool([Task(work, retry=task_retry)], retry=runner_retry))
        assert (found.attempt, len(work.called)) == (1 + retries, 1 + retries)


@pytest.mark.virtual
async def test_delay_of_the_verdict_replaces_the_back_off() -> None:
    delays = iter([7.5, None])
    retry = make_retry(classify=lambda _: Verdict("transient", next(delays)))
    work = Flaky(2)
    assert summarize(await envelopes(pool([work], retry=retry))) == ["done"]
    assert work.gaps() == pytest.approx([7.5, 2])


async def test_predicate_error_is_the_error_of_the_task() -> None:
    def on(error: Exception) -> bool:
        raise ZeroDivisionError

    [found] = await envelopes(pool([Flaky(1)], retry=Retry(on=on)))
    assert isinstance(found.error, ZeroDivisionError)
    assert isinstance(found.error.__cause__, ValueError)


@pytest.mark.virtual
async def test_jitter_spreads_and_is_repeatable() -> None:
    async def gaps() -> list[float]:
        work = Flaky(4)
        retry = Retry(4, backoff=1, max_backoff=4, random=random.Random(7))
        await envelopes(pool([work], retry=retry))
        return work.gaps()

    first, second = await gaps(), await gaps()
    assert first == pytest.approx(second)
    for gap, most in zip(first, (1, 2, 4, 4), strict=True):
        assert most / 2 <= gap <= most + 1e-6


def test_delay_never_exceeds_its_bound() -> None:
    retry = Retry(retries=9_999, jitter=False)
    assert [retry.delay(ValueError(), attempt) for attempt in (1, 2, 3, 8, 9_999)] == [
        0.5,
        1,
        2,
        60,
        60,
    ]


async def test_generator_is_called_anew() -> None:
    calls = 0

    async def work() -> AsyncIterator[int]:
        nonlocal calls
        calls += 1
        yield calls
        if calls == 1:
            raise ValueError

    found = await envelopes(pool([work], retry=Retry(backoff=0)))
    assert [(e.value, e.attempt) for e in found] == [(1, 1), (2, 2), (None, 2)]


async def test_task_in_a_thread_is_retried() -> None:
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError
        return calls

    tasks = [Task(work, thread=True, retry=Retry(backoff=0))]
    assert summarize(await envelopes(pool(tasks))) == [3]


@pytest.mark.virtual
async def test_leaving_a_run_cancels_retries() -> None:
    errors: list[BaseException] = []
    work = Task(Flaky(1), retry=make_retry(backoff=5), on_error=errors.append)
    runner = pool([work, one], 1)
    async with runner.run_tasks() as progress:
        assert (await anext(progress)).value == 1
        await until(lambda: runner.snapshot().backing_off)
    assert [type(error) for error in errors] == [asyncio.CancelledError]
    assert await runner.drain() == []


async def test_retry_requests_its_capacity_again() -> None:
    capacity = CapacitySource(1)
    work = Flaky(1)
    runner = HierarchicalTaskPoolRunner([work], capacity, retry=Retry(backoff=0.001))
    async with runner.run_tasks() as progress:
        await until(lambda: runner.snapshot().backing_off)
        lease = capacity.acquire_nowait()
        assert lease is not None
        await until(lambda: capacity.waiting, 1_000_000)
        await quiet()
        assert len(work.called) == 1
        lease.release()
        assert summarize([envelope async for envelope in progress]) == ["done"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"retries": 1.5}, r"retries must be an integer, got 1.5 \(float\)"),
        ({"on": 5}, "on must be an exception class, a tuple of them or a function .* got 5"),
        ({"on": int}, "on must be an exception class"),
        ({"on": (ValueError, 5)}, "on must be an exception class"),
        ({"backoff": -1}, "backoff must not be negative, got -1"),
        ({"factor": 0.5}, "factor must be at least 1, got 0.5"),
        ({"max_backoff": "1"}, r"max_backoff must be a number, got '1' \(str\)"),
        ({"jitter": 1}, "jitter must be True or False, got 1"),
        ({"classify": 5}, "classify must be callable or None, got 5"),
        ({"random": 5}, "random must be a random.Random or None, got 5"),
    ],
)
def test_bad_retry_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Retry(**options)
