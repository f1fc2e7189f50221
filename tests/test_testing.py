"""The virtual clock, and how this suite runs its asynchronous tests."""

from __future__ import annotations

import asyncio
import math
import shlex
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Rate, SourceIterObj, Task
from headrace.testing import DeadlockError, VirtualClock
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

pytest_plugins = ["pytester"]

T = TypeVar("T")

CENTURY = 100 * 365 * 86_400.0


def run(main: Coroutine[Any, Any, T], clock: VirtualClock) -> T:
    with asyncio.Runner(loop_factory=clock) as runner:
        return runner.run(main)


async def after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


@pytest.mark.virtual
async def test_a_day_of_sleep_takes_no_time() -> None:
    loop, wall = asyncio.get_running_loop(), time.monotonic()
    await asyncio.sleep(86_400.5)
    assert loop.time() == 86_400.5
    assert time.monotonic() - wall < 30


@pytest.mark.virtual
async def test_a_century_of_sleep_takes_no_time() -> None:
    assert await after(CENTURY) == CENTURY
    assert await after(0.5) == CENTURY + 0.5


# From 2**24 s on, the resolution that asyncio adds to the current time is lost in rounding.
@pytest.mark.parametrize(
    "start", [2.0**24, 1.8e9, pytest.param(time.time(), id="now"), 2.0**52, 1e300]
)
def test_clock_can_start_at_any_time(start: float) -> None:
    assert run(after(1), VirtualClock(start)) == start + 1


def test_infinite_timer_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError, match="nothing is ready"):
        run(after(math.inf), VirtualClock(patience=0))


@pytest.mark.virtual
async def test_timers_run_in_order() -> None:
    events: list[tuple[str, float]] = []

    async def at(name: str, *delays: float) -> None:
        for delay in delays:
            await asyncio.sleep(delay)
            events.append((name, asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(at("a", 3, 3))
        group.create_task(at("b", 1, 4))
        group.create_task(at("c", 0, 2))
    assert events == [("c", 0), ("b", 1), ("c", 2), ("a", 3), ("b", 5), ("a", 6)]


@pytest.mark.virtual
async def test_timeout_expires_on_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 10


@pytest.mark.virtual
async def test_clock_stops_while_a_thread_works() -> None:
    loop, iterated = asyncio.get_running_loop(), threading.Event()

    def job() -> bool:
        # The loop completes an iteration and waits again before this job ends.
        loop.call_soon_threadsafe(iterated.set)
        return iterated.wait(timeout=30)

    async with asyncio.timeout(0.001):
        assert await asyncio.to_thread(job)
    assert loop.time() == 0


def test_thread_can_wait_for_a_timer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop).result(timeout=30)
        )

    clock = VirtualClock(patience=0.01)
    with asyncio.Runner(loop_factory=clock) as runner:
        runner.run(main())
    assert clock.time() == 60


def block(released: threading.Event) -> bool:
    """A job of a pool that ends once `released` is set."""
    return released.wait(timeout=30)


@pytest.mark.virtual
async def test_clock_stops_for_pool_threads() -> None:
    released = threading.Event()
    pool = SourceIterObj([released]).map_pool(block, CapacitySource(1), thread=True, timeout=60)
    async with pool.timeout(60) as results:
        first = asyncio.ensure_future(anext(results))
        # In real time: the loop only waits for the job.
        threading.Timer(0.05, released.set).start()
        assert await first
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.parametrize("kind", ["to_thread", "pool"])
def test_running_job_is_no_deadlock(kind: str) -> None:
    async def main() -> bool:
        released = threading.Event()
        threading.Timer(0.05, released.set).start()
        if kind == "to_thread":
            return await asyncio.to_thread(block, released)
        pool = SourceIterObj([released]).map_pool(block, CapacitySource(1), thread=True)
        async with pool as results:
            return await anext(results)

    # The job takes longer than the patience.
    assert run(main(), VirtualClock(patience=0))


def test_abandoned_job_stops_no_timer() -> None:
    released = threading.Event()

    async def main() -> float:
        async def freed() -> float:
            async with capacity.acquire():
                return asyncio.get_running_loop().time()

        capacity = CapacitySource(1)
        runner = HierarchicalTaskPoolRunner([Task(block, released, thread=True)], capacity)
        async with runner.run_tasks():
            await until(lambda: capacity.held)
            assert await runner.abort(wait=False) == (1,)
        waiting = asyncio.ensure_future(freed())
        before = time.monotonic()
        for _ in range(10_000):
            await asyncio.sleep(1)
        # If the clock stopped for the abandoned job, this would take minutes.
        assert time.monotonic() - before < 30
        assert not waiting.done()
        # No timer is left from here on. The waiter gets the capacity when the job ends.
        threading.Timer(0.2, released.set).start()
        return await waiting

    assert run(main(), VirtualClock(patience=0.04)) == 10_000


@pytest.mark.parametrize("kind", ["to_thread", "pool"])
def test_job_that_blocks_everything_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.testing.virtual_clock.LONGEST", 0.05)
    released = threading.Event()

    async def released_by(job: Awaitable[object]) -> None:
        # Before the pool is closed, which waits for its thread.
        try:
            await job
        finally:
            released.set()

    async def main() -> None:
        if kind == "to_thread":
            await released_by(asyncio.to_thread(block, released))
        else:
            pool = SourceIterObj([released]).map_pool(
                block, CapacitySource(1), thread=True, name="mill"
            )
            async with pool as results:
                await released_by(anext(results))

    name = "block" if kind == "to_thread" else "mill.*"
    with pytest.raises(
        DeadlockError, match=rf"has not ended in 0.05 real seconds: {name}; .* raise patience"
    ):
        run(main(), VirtualClock(patience=0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mill")]


async def two_calls(seconds: float) -> float:
    """Make two calls at a rate of the real clock: the second one waits."""
    capacity = CapacitySource({"calls": Rate(1, per=seconds)})
    for _ in range(2):
        async with capacity.acquire({"calls": 1}):
            pass
    return asyncio.get_running_loop().time()


def test_law_10_clock_stops_for_real_clock_capacity() -> None:
    async def main() -> float:
        async with asyncio.timeout(60):
            return await two_calls(0.1)

    assert run(main(), VirtualClock(patience=30)) == 0
    # Nor is it a deadlock.
    assert run(two_calls(0.1), VirtualClock(patience=0)) == 0


def test_law_10_real_clock_wait_is_limited_by_patience() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await two_calls(3600)
        return asyncio.get_running_loop().time()

    assert run(main(), VirtualClock(patience=0.01)) == 60


def test_law_10_real_clock_deadlock_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.testing.virtual_clock.LONGEST", 0.05)
    with pytest.raises(DeadlockError, match=r"a capacity by the real clock, .*clock=loop\.time"):
        run(two_calls(3600), VirtualClock(patience=0))


def test_deadlock_error_names_the_waiting_task() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    clock = VirtualClock(patience=0)
    with (
        asyncio.Runner(loop_factory=clock) as runner,
        pytest.raises(
            DeadlockError, match=r"nothing is ready and no timer.*forgotten.*test_testing"
        ),
    ):
        runner.run(forgotten())


def test_thread_can_end_the_idle_wait() -> None:
    async def main() -> str:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(woken.set))
        loop.call_soon(thread.start)
        await woken.wait()
        thread.join()
        return "woken"

    with asyncio.Runner(loop_factory=VirtualClock(patience=30)) as runner:
        assert runner.run(main()) == "woken"


def test_clock_can_be_advanced_manually() -> None:
    async def main() -> float:
        start = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_soon(clock.advance, 5)
        await asyncio.sleep(3)  # due, since the clock has passed it
        return start

    clock = VirtualClock(start=100)
    with asyncio.Runner(loop_factory=clock) as runner:
        assert runner.run(main()) == 100
    assert clock.time() == 105


def test_clock_never_jumps_back() -> None:
    clock = VirtualClock(100)
    clock.jump(99)
    assert clock.time() == 100
    clock.jump(101)
    assert clock.time() == 101


@pytest.mark.virtual
async def test_repr_of_loop_shows_time_and_jobs() -> None:
    loop, released = asyncio.get_running_loop(), threading.Event()
    await asyncio.sleep(1.5)
    assert repr(loop) == "<VirtualLoop: at 1.500000 s, running>"
    job = asyncio.ensure_future(asyncio.to_thread(block, released))
    await until(lambda: "at 1.500000 s, running, 1 job in threads>" in repr(loop))
    released.set()
    await job
    assert repr(loop) == "<VirtualLoop: at 1.500000 s, running>"
    call = asyncio.ensure_future(two_calls(60))
    await until(lambda: "running, 1 timer of the real clock>" in repr(loop))
    call.cancel()
    await asyncio.wait([call])
    other = VirtualClock()()
    assert repr(other) == "<VirtualLoop: at 0.000000 s, not running>"
    other.close()
    assert repr(other) == "<VirtualLoop: at 0.000000 s, closed>"


def test_bad_input_names_parameter_and_value() -> None:
    with pytest.raises(ValueError, match=r"patience must not be negative, got -1"):
        VirtualClock(patience=-1)
    with pytest.raises(ValueError, match=r"seconds must be .* got nan"):
        VirtualClock().advance(float("nan"))
    with pytest.raises(ValueError, match=r"seconds must be a finite number, got inf"):
        VirtualClock().advance(math.inf)
    with pytest.raises(ValueError, match=r"when must be a finite number, got inf"):
        VirtualClock().jump(math.inf)
    with pytest.raises(ValueError, match=r"start must be a finite number, got nan"):
        VirtualClock(math.nan)
    wrong: Any = None
    with pytest.raises(TypeError, match=r"patience must be a number, got None \(NoneType\)"):
        VirtualClock(patience=wrong)
    with pytest.raises(TypeError, match=r"start must be a number, got None \(NoneType\)"):
        VirtualClock(wrong)


async def test_async_tests_run_on_the_named_loop(loop_kind: str) -> None:
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.startswith("uvloop") == (loop_kind == "uvloop")
    assert (loop.get_task_factory() is not None) == (loop_kind == "eager")


def test_leftover_task_or_error_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    root = shlex.quote(str(Path(__file__).parents[1]))  # the conftest imports from the repository
    pytester.makeini(f"[pytest]\npythonpath = {root}\nmarkers =\n  loops\n  virtual\n")
    pytester.makepyfile("""
        import asyncio
        import pytest

        tasks = []

        @pytest.mark.loops("asyncio")
        async def test_leaves_a_task():
            tasks.append(asyncio.create_task(asyncio.sleep(3600), name="the-orphan"))

        @pytest.mark.loops("asyncio")
        async def test_unhandled_error():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)

        @pytest.mark.virtual
        async def test_passes(loop_kind):
            await asyncio.sleep(3600)
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.re_match_lines_random(
        [".*1 task.s. left running.*", ".*the-orphan.*", ".*ZeroDivisionError.*"]
    )
