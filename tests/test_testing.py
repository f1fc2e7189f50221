"""The virtual clock, and the way this suite runs its asynchronous tests."""

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


# From 2**24 s on, what asyncio adds to the time, to see what is due, is less than a float can tell from it.
@pytest.mark.parametrize(
    "start", [2.0**24, 1.8e9, pytest.param(time.time(), id="now"), 2.0**52, 1e300]
)
def test_a_clock_may_show_any_time(start: float) -> None:
    assert run(after(1), VirtualClock(start)) == start + 1


def test_a_timer_that_never_comes_is_silence() -> None:
    with pytest.raises(DeadlockError, match="nothing is ready"):
        run(after(math.inf), VirtualClock(patience=0))


@pytest.mark.virtual
async def test_things_happen_in_the_order_of_their_timers() -> None:
    seen: list[tuple[str, float]] = []

    async def at(name: str, *delays: float) -> None:
        for delay in delays:
            await asyncio.sleep(delay)
            seen.append((name, asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(at("a", 3, 3))
        group.create_task(at("b", 1, 4))
        group.create_task(at("c", 0, 2))
    assert seen == [("c", 0), ("b", 1), ("c", 2), ("a", 3), ("b", 5), ("a", 6)]


@pytest.mark.virtual
async def test_a_timeout_strikes_at_its_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 10


@pytest.mark.virtual
async def test_the_clock_stands_still_while_a_thread_works() -> None:
    loop, turned = asyncio.get_running_loop(), threading.Event()

    def job() -> bool:
        # The loop has turned, and gone back to waiting, before this job ends.
        loop.call_soon_threadsafe(turned.set)
        return turned.wait(timeout=30)

    async with asyncio.timeout(0.001):
        assert await asyncio.to_thread(job)
    assert loop.time() == 0


def test_a_thread_that_waits_for_a_timer_gets_it() -> None:
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
    """A job of a pool: it ends when it is told to."""
    return released.wait(timeout=30)


@pytest.mark.virtual
async def test_the_clock_stands_still_for_the_threads_of_a_pool() -> None:
    released = threading.Event()
    pool = SourceIterObj([released]).map_pool(block, CapacitySource(1), thread=True, timeout=60)
    async with pool.timeout(60) as results:
        first = asyncio.ensure_future(anext(results))
        # In real time: the loop has nothing to do meanwhile but to wait for the job.
        threading.Timer(0.05, released.set).start()
        assert await first
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.parametrize("kind", ["to_thread", "pool"])
def test_a_job_is_no_silence(kind: str) -> None:
    async def main() -> bool:
        released = threading.Event()
        threading.Timer(0.05, released.set).start()
        if kind == "to_thread":
            return await asyncio.to_thread(block, released)
        pool = SourceIterObj([released]).map_pool(block, CapacitySource(1), thread=True)
        async with pool as results:
            return await anext(results)

    # It takes longer than the patience.
    assert run(main(), VirtualClock(patience=0))


def test_a_job_that_was_left_is_no_silence_and_holds_up_no_timer() -> None:
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
        # If the clock stood still for what nobody waits for, it would do so for minutes here.
        assert time.monotonic() - before < 30
        assert not waiting.done()
        # No timer is left from here on, and who waits for the capacity will have it.
        threading.Timer(0.2, released.set).start()
        return await waiting

    assert run(main(), VirtualClock(patience=0.04)) == 10_000


@pytest.mark.parametrize("kind", ["to_thread", "pool"])
def test_a_job_that_holds_up_everything_is_named(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def one_call_a(seconds: float) -> float:
    """Two calls at a rate by the real clock: the second one waits."""
    capacity = CapacitySource({"calls": Rate(1, per=seconds)})
    for _ in range(2):
        async with capacity.acquire({"calls": 1}):
            pass
    return asyncio.get_running_loop().time()


def test_law_10_the_clock_stands_still_for_a_capacity_by_the_real_clock() -> None:
    async def main() -> float:
        async with asyncio.timeout(60):
            return await one_call_a(0.1)

    assert run(main(), VirtualClock(patience=30)) == 0
    # It is no silence either.
    assert run(one_call_a(0.1), VirtualClock(patience=0)) == 0


def test_law_10_a_capacity_by_the_real_clock_holds_up_a_timer_no_longer_than_a_job() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await one_call_a(3600)
        return asyncio.get_running_loop().time()

    assert run(main(), VirtualClock(patience=0.01)) == 60


def test_law_10_a_capacity_by_the_real_clock_that_holds_up_everything_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.testing.virtual_clock.LONGEST", 0.05)
    with pytest.raises(DeadlockError, match=r"a capacity by the real clock, .*clock=loop\.time"):
        run(one_call_a(3600), VirtualClock(patience=0))


def test_silence_is_an_error_that_says_who_waits() -> None:
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


def test_a_thread_may_end_the_silence() -> None:
    async def main() -> str:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(woken.set))
        loop.call_soon(thread.start)
        await woken.wait()
        thread.join()
        return "woken"

    with asyncio.Runner(loop_factory=VirtualClock(patience=30)) as runner:
        assert runner.run(main()) == "woken"


def test_a_clock_can_be_moved_by_hand_and_starts_where_it_is_told() -> None:
    async def main() -> float:
        begun = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_soon(clock.advance, 5)
        await asyncio.sleep(3)  # due, since the clock has passed it
        return begun

    clock = VirtualClock(start=100)
    with asyncio.Runner(loop_factory=clock) as runner:
        assert runner.run(main()) == 100
    assert clock.time() == 105


def test_a_clock_jumps_on_and_never_back() -> None:
    clock = VirtualClock(100)
    clock.jump(99)
    assert clock.time() == 100
    clock.jump(101)
    assert clock.time() == 101


@pytest.mark.virtual
async def test_a_loop_tells_how_it_stands() -> None:
    loop, released = asyncio.get_running_loop(), threading.Event()
    await asyncio.sleep(1.5)
    assert repr(loop) == "<VirtualLoop: at 1.500000 s, running>"
    job = asyncio.ensure_future(asyncio.to_thread(block, released))
    await until(lambda: "at 1.500000 s, running, 1 job in threads>" in repr(loop))
    released.set()
    await job
    assert repr(loop) == "<VirtualLoop: at 1.500000 s, running>"
    call = asyncio.ensure_future(one_call_a(60))
    await until(lambda: "running, 1 timer of the real clock>" in repr(loop))
    call.cancel()
    await asyncio.wait([call])
    other = VirtualClock()()
    assert repr(other) == "<VirtualLoop: at 0.000000 s, not running>"
    other.close()
    assert repr(other) == "<VirtualLoop: at 0.000000 s, closed>"


def test_bad_input_names_the_parameter_and_the_value() -> None:
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


async def test_every_async_test_runs_on_the_loop_it_names(loop_kind: str) -> None:
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.startswith("uvloop") == (loop_kind == "uvloop")
    assert (loop.get_task_factory() is not None) == (loop_kind == "eager")


def test_what_a_test_leaves_behind_fails_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    house = shlex.quote(str(Path(__file__).parents[1]))  # our conftest asks for what stands in it
    pytester.makeini(f"[pytest]\npythonpath = {house}\nmarkers =\n  loops\n  virtual\n")
    pytester.makepyfile("""
        import asyncio
        import pytest

        kept = []

        @pytest.mark.loops("asyncio")
        async def test_leaves_a_task():
            kept.append(asyncio.create_task(asyncio.sleep(3600), name="the-orphan"))

        @pytest.mark.loops("asyncio")
        async def test_an_error_nobody_hears():
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
