"""Single flight: equal calls of one moment are one call, which goes on while one caller waits."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import traceback
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, DeadlockWarning, WouldDeadlock
from headrace.testing import VirtualClock, cancel_everywhere, shuffled_loop
from tests.cache_support import Calls, cache_of
from tests.support import cancel_repeatedly, quiet, until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from headrace.testing import Outcome


async def test_fifty_equal_calls_are_one() -> None:
    node = CapacitySource(50)
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        ask = cache.wrap(calls, capacity=node)
        callers = [asyncio.create_task(ask("a")) for _ in range(50)]
        await quiet()
        # Followers hold nothing, and do not wait for capacity.
        assert (node.held, node.waiting) == (1, 0)
        calls.open.set()
        results = await asyncio.gather(*callers)
        assert calls.begun == ["a"]
        assert all(result is results[0] for result in results)
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.flights, stats.stored) == (0, 50, 1, 1)
    assert node.held == 0


async def test_callers_are_resumed_in_order() -> None:
    calls = Calls(is_open=False)
    resumed: list[int] = []
    async with cache_of() as cache:
        ask = cache.wrap(calls)

        async def caller(number: int) -> None:
            await ask("a")
            resumed.append(number)

        callers = [asyncio.create_task(caller(number)) for number in range(5)]
        await quiet()
        calls.open.set()
        await asyncio.gather(*callers)
    assert resumed == list(range(5))


COUNT = 3


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cancelled", range(COUNT))
@pytest.mark.parametrize("others", ["stay", "leave"])
async def test_law_8_20_sweep_of_cancellation(cancelled: int, others: str, fails: bool) -> None:
    """Cancel one caller at each of its steps; the others stay, or have left before."""

    async def case() -> AsyncGenerator[Coroutine[Any, Any, Any], Outcome]:
        node = CapacitySource(1)
        calls = Calls(error=ValueError("no") if fails else None)
        cache = cache_of()
        ask = cache.wrap(calls, capacity=node)
        tasks = [asyncio.create_task(ask("a")) for _ in range(cancelled)]
        # The earlier callers come first, the later ones while the cancelled one is on its way.
        await asyncio.sleep(0)

        async def work() -> Any:
            tasks.extend(asyncio.create_task(ask("a")) for _ in range(cancelled + 1, COUNT))
            if others == "leave":
                asyncio.get_running_loop().call_soon(leave)
            try:
                return await ask("a")
            except ValueError as error:
                return error

        def leave() -> None:
            for task in tasks:
                task.cancel()

        outcome = yield work()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if others == "stay":
            for result in results:
                assert result is calls.error or result == ("a", "result"), result
            # The call went on. A caller that comes after its end gets the result, or calls again after an error.
            assert calls.cancelled == []
            assert fails or len(calls.begun) == 1
        if not outcome.cancelled:
            assert outcome.value in (calls.error, ("a", "result"))
        assert calls.running == 0
        assert calls.cleaned == calls.cancelled
        assert node.held == node.waiting == 0
        assert cache.stats().stored == (
            0 if fails else min(1, len(calls.ended) - len(calls.cancelled))
        )
        await cache.aclose()

    assert await cancel_everywhere(case) > 0


@pytest.mark.loops("asyncio")
def test_law_8_20_random_callers() -> None:
    for seed in range(150):
        print("seed", seed)
        with asyncio.Runner(loop_factory=shuffled_loop(seed, clock=VirtualClock())) as runner:
            runner.run(_random_callers(random.Random(seed)))


async def _random_callers(rng: random.Random) -> None:
    """Let callers of few keys come and be cancelled at random, and check the invariants at each iteration."""
    node = CapacitySource(rng.randint(1, 3))
    calls = Calls(iterations=rng.randint(0, 4), error=rng.choice([None, None, ValueError("no")]))
    cache = cache_of()
    ask = cache.wrap(calls, capacity=node)
    waiting = {"a": 0, "b": 0}
    outcomes: list[str] = []

    async def caller(item: str, rounds: int) -> None:
        await yield_to_loop(rounds)
        waiting[item] += 1
        try:
            assert await ask(item) == (item, "result")
            outcomes.append("result")
        except ValueError as error:
            outcomes.append("error" if error is calls.error else "another error")
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise
        finally:
            waiting[item] -= 1

    tasks = [
        asyncio.create_task(caller(rng.choice("ab"), rng.randrange(10)))
        for _ in range(rng.randint(1, 8))
    ]
    while not all(task.done() for task in tasks):
        assert calls.running <= node.held <= node.limit
        assert calls.running <= sum(waiting.values()), "a call without a caller"
        if rng.random() < 0.2:
            rng.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(outcomes) <= {"result", "error", "cancelled"}
    # The last waiter has waited for the end of its call.
    assert calls.running == node.held == node.waiting == 0
    assert calls.cleaned == calls.cancelled
    await cache.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_last_caller_waits_for_the_end_of_the_call() -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()
    node = CapacitySource(1)

    async def fn(item: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    async with cache_of() as cache:
        ask = cache.wrap(fn, capacity=node)
        first, last = (asyncio.create_task(ask("a")) for _ in range(2))
        await quiet()
        first.cancel()
        await quiet()
        assert first.cancelled()
        assert not cleaning.is_set()
        await cancel_repeatedly(last, cleaning, cleaned)
        assert node.held == 0


async def test_caller_after_the_last_makes_another_call() -> None:
    calls = Calls(is_open=False, iterations=10)
    node = CapacitySource(2)
    async with cache_of() as cache:
        ask = cache.wrap(calls, capacity=node)
        first = asyncio.create_task(ask("a"))
        await until(lambda: calls.begun)
        first.cancel()
        await until(lambda: calls.cancelled)
        calls.open.set()
        # The first call has not ended, and holds its slot.
        second = asyncio.create_task(ask("a"))
        await until(lambda: len(calls.begun) == 2)
        assert (calls.running, node.held) == (2, 2)
        assert await second == ("a", "result")
        await asyncio.wait([first])
        assert first.cancelled()


async def test_result_in_spite_of_cancellation_is_stored() -> None:
    begun = asyncio.Event()

    async def stubborn(item: str) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return item

    async with cache_of() as cache:
        ask = cache.wrap(stubborn)
        caller = asyncio.create_task(ask("a"))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await ask("a") == "a"
        assert cache.stats().flights == 1


async def test_error_while_stopping_is_noted() -> None:
    async def fn(item: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the clean-up")

    async with cache_of() as cache:
        caller = asyncio.create_task(cache.wrap(fn)("a"))
        await quiet()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await caller
    assert cancelled.value.__notes__ == ["while stopping the call: ValueError('in the clean-up')"]


async def test_cancelled_wait_for_capacity_holds_nothing() -> None:
    node = CapacitySource(1)
    calls = Calls()
    async with cache_of() as cache, node.acquire(owner=None):
        ask = cache.wrap(calls, capacity=node)
        callers = [asyncio.create_task(ask("a")) for _ in range(3)]
        await quiet()
        assert node.waiting == 1
        callers[0].cancel()
        await quiet()
        # The first caller's place in the queue stays, for the others.
        assert node.waiting == 1
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert (node.waiting, node.held, calls.begun) == (0, 1, [])


async def test_call_that_is_cancelled_from_elsewhere_fails_its_callers() -> None:
    calls = Calls(is_open=False)
    async with cache_of() as cache:
        ask = cache.wrap(calls)
        for steps in (1, 5):
            callers = [asyncio.create_task(ask("a")) for _ in range(2)]
            await yield_to_loop(steps)
            (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "cached Calls"]
            task.cancel()
            for result in await asyncio.gather(*callers, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError)


async def test_all_callers_get_the_same_error_and_its_traceback_stays_short() -> None:
    calls = Calls(error=ValueError("no"))
    lengths: list[int] = []
    async with cache_of() as cache:
        ask = cache.wrap(calls)

        async def caller() -> None:
            with pytest.raises(ValueError, match="no") as caught:
                await ask("a")
            assert caught.value is calls.error
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))

        await asyncio.gather(*(caller() for _ in range(50)))
    assert calls.begun == ["a"]
    assert len(set(lengths)) == 1


async def test_errors_are_in_no_reference_cycle(gc_disabled: None) -> None:
    class Failure(Exception):
        pass

    async def fn(item: str) -> None:
        await asyncio.sleep(0)
        raise Failure

    async with cache_of() as cache:
        ask = cache.wrap(fn)

        async def caller() -> weakref.ref[Failure]:
            try:
                await ask("a")
            except Failure as error:
                return weakref.ref(error)
            raise AssertionError

        errors = await asyncio.gather(caller(), caller())
        await quiet()
        assert [error() for error in errors] == [None, None]


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_iteration_errors_are_wrapped(error: type[BaseException]) -> None:
    async def fn(item: str) -> None:
        await asyncio.sleep(0)
        raise error

    async with cache_of() as cache:
        with pytest.raises(RuntimeError, match=error.__name__):
            await cache.wrap(fn)("a")


async def test_recursion_with_the_same_key_is_detected() -> None:
    async with cache_of() as cache:

        async def direct(item: str) -> Any:
            return await asked(item)

        async def gathered(item: str) -> Any:
            return await asyncio.gather(asyncio.sleep(0), asked_in_task(item))

        asked, asked_in_task = cache.wrap(direct), cache.wrap(gathered)
        for fn, name in ((asked, "direct"), (asked_in_task, "gathered")):
            with pytest.raises(WouldDeadlock, match=f"a call of {name} would wait for itself"):
                await fn("a")


async def test_recursion_through_other_calls_is_detected() -> None:
    length = 300
    async with cache_of() as cache:

        async def ring(item: int) -> Any:
            return await asked((item + 1) % length)

        asked = cache.wrap(ring)
        with pytest.raises(WouldDeadlock, match="would wait for itself"):
            await asked(0)
        assert cache.stats().flights == length


async def test_two_calls_that_wait_for_each_other_are_detected() -> None:
    async with cache_of() as cache, cache_of() as another:
        both = asyncio.Barrier(2)

        async def fn(item: str, other: Any) -> Any:
            await both.wait()
            return await other("ab".replace(item, ""))

        first = cache.wrap(lambda item: fn(item, second), version="1")
        second = another.wrap(lambda item: fn(item, first), version="1")
        results = await asyncio.gather(first("a"), second("b"), return_exceptions=True)
        # The second one to join raises, so the other call fails with its error.
        assert [type(result) for result in results] == [WouldDeadlock, WouldDeadlock]


async def test_recursion_with_other_keys_works() -> None:
    async with cache_of() as cache:

        async def fibonacci(n: int) -> int:
            return n if n < 2 else sum(await asyncio.gather(asked(n - 1), asked(n - 2)))

        asked = cache.wrap(fibonacci)
        assert await asked(60) == 1548008755920
        assert cache.stats().flights == 61


async def test_task_that_outlives_a_call_may_call_again() -> None:
    later: list[asyncio.Task[Any]] = []
    ended = asyncio.Event()
    async with cache_of() as cache:

        async def fn(item: str) -> str:
            async def again() -> Any:
                await ended.wait()
                return await asked(item)

            later.append(asyncio.create_task(again()))
            return item

        asked = cache.wrap(fn)
        assert await asked("a") == "a"
        ended.set()
        assert await later[0] == "a"


async def test_stuck_tree_names_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.pool._stuck.INTERVAL", 0.01)
    node = CapacitySource(1, name="node")
    calls = Calls()
    async with cache_of() as cache:
        ask = cache.wrap(calls, capacity=node)

        async def holder() -> None:
            async with node.acquire():
                await ask("a")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = asyncio.create_task(holder(), name="holder")
            for _ in range(300):
                await asyncio.sleep(0.01)
                if caught:
                    break
            task.cancel()
            await asyncio.wait([task])
    assert [one.category for one in caught] == [DeadlockWarning]
    assert "'holder' waits for task 'cached Calls'" in str(caught[0].message)


@pytest.mark.loops("asyncio")
def test_law_9_each_loop_makes_its_own_call() -> None:
    begun, both = threading.Barrier(2), threading.Barrier(2)
    calls: list[int] = []

    async def fn(item: str) -> str:
        calls.append(threading.get_ident())
        begun.wait(30)
        return item

    cache = cache_of()
    ask = cache.wrap(fn)
    results: list[str] = []

    def run() -> None:
        async def main() -> None:
            results.append(await ask("a"))
            both.wait(30)
            results.append(await ask("a"))

        asyncio.run(main())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["a"] * 4
    assert len(set(calls)) == 2
    assert (cache.stats().hits, cache.stats().flights) == (2, 2)


@pytest.mark.loops("asyncio")
def test_cache_may_be_used_on_one_loop_after_another() -> None:
    cache = cache_of()

    async def fn(item: str) -> str:
        await asyncio.sleep(0)
        return item

    ask = cache.wrap(fn)
    # The first loop ends while its call is under way.
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(cache.wrap(_forever)("a"), 0.01))
    for _ in range(2):
        assert asyncio.run(_run(functools.partial(ask, "a"))) == "a"
    assert (cache.stats().hits, cache.stats().flights) == (1, 2)


async def _forever(item: str) -> None:
    await asyncio.Event().wait()


async def _run(fn: Any) -> Any:
    return await fn()
