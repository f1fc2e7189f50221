"""A task of a pool reaches what it holds, and nobody else's."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    Final,
    HierarchicalTaskPoolRunner,
    Lease,
    PushPullBufferObj,
    Rate,
    Retry,
    SourceIterObj,
    Task,
    current_lease,
)
from tests.pool_support import envelopes, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [
    pytest.mark.usefixtures("way"),
]


def held() -> dict[str, float]:
    return current_lease().cost


async def held_after_a_turn() -> dict[str, float]:
    await asyncio.sleep(0)
    return held()


async def held_by_a_generator() -> AsyncIterator[Final[dict[str, float]]]:
    await asyncio.sleep(0)
    yield Final(held())


async def held_in_a_task_and_a_thread() -> list[dict[str, float]]:
    return [await asyncio.create_task(held_after_a_turn()), await asyncio.to_thread(held)]


def capacity_of(slots: int = 9, tokens: int = 100) -> CapacitySource:
    return CapacitySource({"slots": slots, "tokens": tokens})


async def values(runner: HierarchicalTaskPoolRunner) -> list[Any]:
    return shown(await envelopes(runner))


@pytest.mark.parametrize("fn", [held, held_after_a_turn, held_by_a_generator])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_task_finds_its_own_lease(fn: Callable[[], Any], waits: bool) -> None:
    tasks = [Task(fn, cost={"slots": 1, "tokens": number}) for number in (5, 7, 9)]
    runner = HierarchicalTaskPoolRunner(tasks, capacity_of(1 if waits else 9), ordered=waits)
    found = await values(runner)
    assert sorted(cost["tokens"] for cost in found) == [5, 7, 9]
    assert {cost["slots"] for cost in found} == {1}


async def test_a_task_in_a_thread_finds_its_own_lease() -> None:
    tasks = [Task(held, cost={"slots": 1, "tokens": number}, thread=True) for number in (5, 7, 9)]
    found = await values(HierarchicalTaskPoolRunner(tasks, capacity_of()))
    assert sorted(cost["tokens"] for cost in found) == [5, 7, 9]


async def test_what_a_task_starts_finds_its_lease() -> None:
    cost = {"slots": 1.0, "tokens": 5.0}
    task = Task(held_in_a_task_and_a_thread, cost=cost)
    assert await values(HierarchicalTaskPoolRunner([task], capacity_of())) == [[cost, cost]]


@pytest.mark.parametrize("thread", [False, True])
async def test_settling_frees_capacity_while_the_task_runs(thread: bool) -> None:
    capacity = capacity_of()

    def settle() -> Any:
        current_lease().settle(tokens=2)
        return capacity.held

    task = Task(settle, cost={"slots": 1, "tokens": 50}, thread=thread)
    [found] = await values(HierarchicalTaskPoolRunner([task], capacity))
    assert dict(found) == {"slots": 1, "tokens": 2}
    assert dict(capacity.held) == {"slots": 0, "tokens": 0}


async def test_a_slot_can_be_given_back_for_a_while() -> None:
    capacity = CapacitySource(1)

    async def outer() -> str:
        async with current_lease().suspended():
            assert capacity.held == 0
            async with capacity.acquire():
                pass
        assert capacity.held == 1
        return "done"

    task = Task(outer, cost={"slots": 1})
    assert await values(HierarchicalTaskPoolRunner([task], capacity)) == ["done"]
    assert capacity.held == 0


async def test_each_attempt_has_its_own_lease() -> None:
    found: list[Lease] = []

    async def work() -> None:
        lease = current_lease()
        assert not lease.is_released
        assert all(earlier.is_released for earlier in found)
        found.append(lease)
        raise ValueError

    retry = Retry(retries=2, backoff=0)
    runner = HierarchicalTaskPoolRunner(
        [Task(work, cost={"slots": 1})], CapacitySource(1), retry=retry
    )
    assert await values(runner) == ["ValueError"]
    assert len({id(lease) for lease in found}) == 3
    with pytest.raises(RuntimeError, match="released"):
        found[0].settle(slots=0)


async def test_a_cost_that_is_a_number_has_no_lease_and_no_variable() -> None:
    def work() -> set[str]:
        with pytest.raises(RuntimeError, match=r'cost=\{"slots": 1\}'):
            current_lease()
        return {variable.name for variable in copy_context()} - outside

    outside = {variable.name for variable in copy_context()}
    tasks: list[Any] = [work, Task(work), Task(work, cost=2), Task(work, timeout=60)]
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(9))
    found = await values(runner)
    assert len(found) == 4
    # Nothing but what says that it runs in the run, for those to whom that costs nothing.
    assert all(names <= {"headrace.inside"} for names in found)
    with pytest.raises(RuntimeError, match="no lease here"):
        current_lease()


async def test_work_that_a_task_finds_does_not_find_that_tasks_lease() -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()

    def has_lease() -> bool:
        try:
            current_lease()
        except RuntimeError:
            return False
        return True

    async def finds() -> list[Any]:
        assert has_lease()
        queue.sink.next_nowait(Task(has_lease))
        queue.sink.next_nowait(Task(held, cost={"slots": 2}))
        inner = HierarchicalTaskPoolRunner([has_lease], CapacitySource(1))
        return await inner.run()

    await queue.sink.next(Task(finds, cost={"slots": 1}))
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(9))
    found: list[Any] = []
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            assert envelope.error is None
            found.append(envelope.value)
            if len(found) == 3:
                await queue.sink.return_()
    assert [False] in found
    assert False in found
    assert {"slots": 2} in found


@pytest.mark.virtual
async def test_an_estimate_of_tokens_is_settled_by_the_call() -> None:
    loop = asyncio.get_running_loop()

    async def seconds(settles: bool) -> float:
        begun = loop.time()
        model = CapacitySource({"slots": 20, "tokens": Rate(6_000, burst=1_500)}, clock=loop.time)

        async def ask(prompt: int) -> int:
            if settles:
                current_lease().settle(tokens=300)
            return prompt

        asked = SourceIterObj(range(41)).map_pool(ask, model, cost={"slots": 1, "tokens": 1_500})
        assert await asked.count() == 41
        return loop.time() - begun

    # The first has its burst; each of the others waits for what the one before it took.
    assert await seconds(settles=False) == pytest.approx(40 * 1_500 / 100)
    assert await seconds(settles=True) == pytest.approx(40 * 300 / 100)
