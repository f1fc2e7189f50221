"""`shuffled_loop` and `cancel_everywhere` find programs that depend on order or leak, and pass all others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, PushPullBufferObj
from headrace.testing import Outcome, SweepError, VirtualClock, cancel_everywhere, shuffled_loop
from tests.support import wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator


def order(seed: int, clock: VirtualClock | None = None) -> list[int]:
    """Return the order in which ten ready tasks run, three times over."""
    ran: list[int] = []

    async def one(number: int) -> None:
        for _ in range(3):
            ran.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(one(number))
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=shuffled_loop(seed, clock=clock)) as runner:
        runner.run(main())
    return ran


def test_seed_determines_the_order() -> None:
    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1)) != list(range(10)) * 3


def test_no_task_waits_longer_than_an_iteration() -> None:
    for seed in range(20):
        ran = order(seed)
        assert [sorted(ran[at : at + 10]) for at in (0, 10, 20)] == [list(range(10))] * 3, seed


def test_shuffled_loop_on_a_virtual_clock() -> None:
    clock = VirtualClock()
    assert order(3, clock) == order(3)
    assert clock.time() == 0.001


def test_seed_must_be_an_integer() -> None:
    with pytest.raises(TypeError, match="seed must be an integer, got '7'"):
        shuffled_loop("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"clock must be a VirtualClock or None, got 5 \(int\)"):
        shuffled_loop(1, clock=wrong(5))


def test_repr_of_shuffled_loop_shows_its_seed() -> None:
    assert repr(shuffled_loop(7)) == "<shuffled_loop: seed 7>"
    clock = VirtualClock(2)
    assert (
        repr(shuffled_loop(7, clock=clock))
        == "<shuffled_loop: seed 7, <VirtualClock: at 2.000000 s>>"
    )


def test_order_dependence_is_found() -> None:
    async def first_word() -> str:
        spoken: list[str] = []

        async def say(word: str) -> None:
            spoken.append(word)

        await asyncio.gather(say("first"), say("second"))
        return spoken[0]

    words: set[str] = set()
    for seed in range(10):
        with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
            words.add(runner.run(first_word()))
    assert words == {"first", "second"}


def test_buffer_keeps_its_guarantees_in_any_order() -> None:
    async def main() -> list[int]:
        buffer = PushPullBufferObj[int](2)
        received: list[int] = []

        async def produce() -> None:
            for item in range(50):
                await buffer.sink.next(item)
            await buffer.sink.return_()

        async def consume() -> None:
            async for item in buffer.source:
                received.append(item)

        await asyncio.gather(produce(), consume(), consume())
        return received

    for seed in range(20):
        with asyncio.Runner(loop_factory=shuffled_loop(seed)) as runner:
            assert runner.run(main()) == list(range(50)), f"seed {seed}"


async def test_correct_case_is_tried_at_every_suspension() -> None:
    runs = 0

    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        nonlocal runs
        runs += 1
        capacity = CapacitySource(1)

        async def work() -> str:
            async with capacity.acquire():
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            return "done"

        outcome = yield work()
        assert outcome.cancelled or outcome.value == "done"
        assert capacity.held == 0

    assert await cancel_everywhere(case) == 6
    # One run without interruption, then for each kind two suspensions and the run that finds no third.
    assert runs == 1 + 3 * 3


async def test_leak_at_one_suspension_is_named() -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        held = 0

        async def work() -> None:
            nonlocal held
            await asyncio.sleep(0)
            held += 1
            await asyncio.sleep(0)
            held -= 1

        yield work()
        assert held == 0, "a slot leaked"

    with pytest.raises(
        SweepError, match=r'"cancel" at suspension 1: raised AssertionError\(.a slot leaked'
    ) as caught:
        await cancel_everywhere(case)
    assert "suspension 0" not in str(caught.value)


async def test_case_that_fails_uninterrupted_is_reported() -> None:
    async def fails() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        async def work() -> None:
            raise OSError("disk")

        yield work()

    async def twice() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        yield asyncio.sleep(0)
        yield asyncio.sleep(0)

    with pytest.raises(SweepError, match="without an interruption: raised OSError"):
        await cancel_everywhere(fails)
    with pytest.raises(SweepError, match="without an interruption: the case yielded twice"):
        await cancel_everywhere(twice)
    with pytest.raises(ValueError, match=r"interruptions must be among .*got .*'drop'"):
        await cancel_everywhere(fails, interruptions=["drop"])


async def test_work_that_never_waits_has_no_suspension() -> None:
    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        async def work() -> None:
            pass

        yield work()

    assert await cancel_everywhere(case) == 0


async def test_invalid_case_is_refused() -> None:
    async def coroutine() -> None: ...

    def generator() -> Generator[Any]:
        yield coroutine()

    async def yielding(*values: Any) -> AsyncGenerator[Any, Outcome]:
        for value in values:
            yield value

    for make, message in (
        (5, r"make_case must be a function, .* got 5 \(int\)"),
        (coroutine, "must be an async generator function, .*; calling it gave <coroutine"),
        (generator, "must be an async generator function, .*; calling it gave <generator"),
        (yielding, "it yielded nothing"),
        (lambda: yielding(None), r"it yielded None \(NoneType\)"),
        (lambda: yielding(asyncio.get_running_loop().create_future()), "it yielded <Future"),
    ):
        with pytest.raises(TypeError, match=message):
            await cancel_everywhere(wrong(make))


async def test_untried_suspensions_fail_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.testing.fault_injection.MOST", 3)

    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        yield yield_to_loop(suspensions)

    suspensions = 2
    assert await cancel_everywhere(case, interruptions=["cancel"]) == 2
    suspensions = 6
    with pytest.raises(
        SweepError, match=r'1 fault in 3 runs, .* 3 places:\n.*"cancel" at suspension 3: not tried'
    ):
        await cancel_everywhere(case, interruptions=["cancel"])
