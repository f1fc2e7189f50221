"""The virtual clock, and the way this suite runs its asynchronous tests."""

from __future__ import annotations

import asyncio
import shlex
import threading
import time
from pathlib import Path

import pytest

from headrace.testing import DeadlockError, VirtualClock

pytest_plugins = ["pytester"]


@pytest.mark.virtual
async def test_a_day_of_sleep_takes_no_time() -> None:
    loop, wall = asyncio.get_running_loop(), time.monotonic()
    await asyncio.sleep(86_400.5)
    assert loop.time() == 86_400.5
    assert time.monotonic() - wall < 30


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


def test_bad_input_names_the_parameter_and_the_value() -> None:
    with pytest.raises(ValueError, match=r"patience must be .* got -1"):
        VirtualClock(patience=-1)
    with pytest.raises(ValueError, match=r"seconds must be .* got nan"):
        VirtualClock().advance(float("nan"))


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
