"""A task of a pool can use its own lease, and no other."""

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
from tests.pool_support import ISOLATIONS, envelopes, summarize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [
    pytest.mark.usefixtures("task_path"),
    pytest.mark.parametrize("isolation", ISOLATIONS),
]


def held() -> dict[str, float]:
    return current_lease().cost


async def held_after_sleep() -> dict[str, float]:
    await asyncio.sleep(0)
    return held()


async def held_by_a_generator() -> AsyncIterator[Final[dict[str, float]]]:
    await asyncio.sleep(0)
    yield Final(held())


async def held_in_a_task_and_a_thread() -> list[dict[str, float]]:
    return [await asyncio.create_task(held_after_sleep()), await asyncio.to_thread(held)]


def capacity_of(slots: int = 9, tokens: int = 100) -> CapacitySource:
    return CapacitySource({"slots": slots, "tokens": tokens})


async def values(runner: HierarchicalTaskPoolRunner) -> list[Any]:
    return summarize(await envelopes(runner))


@pytest.mark.parametrize("fn", [held, held_after_sleep, held_by_a_generator])
@pytest.mark.parametrize("is_contended", [False, True])
async def test_task_finds_its_own_lease(
    fn: Callable[[], Any], is_contended: bool, isolation: dict[str, Any]
) -> None:
    tasks = [Task(fn, cost={"slots": 1, "tokens": number}) for number in (5, 7, 9)]
    runner = HierarchicalTaskPoolRunner(
        tasks, capacity_of(1 if is_contended else 9), ordered=is_contended, **isolation
    )
    found = await values(runner)
    assert sorted(cost["tokens"] for cost in found) == [5, 7, 9]
    assert {cost["slots"] for cost in found} == {1}


async def test_task_in_thread_finds_its_own_lease(isolation: dict[str, Any]) -> None:
    tasks = [Task(held, cost={"slots": 1, "tokens": number}, thread=True) for number in (5, 7, 9)]
    found = await values(HierarchicalTaskPoolRunner(tasks, capacity_of(), **isolation))
    assert sorted(cost["tokens"] for cost in found) == [5, 7, 9]


async def test_children_of_a_task_find_its_lease(isolation: dict[str, Any]) -> None:
    cost = {"slots": 1.0, "tokens": 5.0}
    task = Task(held_in_a_task_and_a_thread, cost=cost)
    assert await values(HierarchicalTaskPoolRunner([task], capacity_of(), **isolation)) == [
        [cost, cost]
    ]


@pytest.mark.parametrize("thread", [False, True])
async def test_settle_frees_capacity_while_task_runs(
    thread: bool, isolation: dict[str, Any]
) -> None:
    capacity = capacity_of()

    def settle() -> Any:
        current_lease().settle(tokens=2)
        return capacity.held

    task = Task(settle, cost={"slots": 1, "tokens": 50}, thread=thread)
    [found] = await values(HierarchicalTaskPoolRunner([task], capacity, **isolation))
    assert dict(found) == {"slots": 1, "tokens": 2}
    assert dict(capacity.held) == {"slots": 0, "tokens": 0}


async def test_lease_can_be_suspended(isolation: dict[str, Any]) -> None:
    capacity = CapacitySource(1)

    async def outer() -> str:
        async with current_lease().suspended():
            assert capacity.held == 0
            async with capacity.acquire():
                pass
        assert capacity.held == 1
        return "done"

    task = Task(outer, cost={"slots": 1})
    assert await values(HierarchicalTaskPoolRunner([task], capacity, **isolation)) == ["done"]
    assert capacity.held == 0


async def test_each_attempt_has_its_own_lease(isolation: dict[str, Any]) -> None:
    found: list[Lease] = []

    async def work() -> None:
        lease = current_lease()
        assert not lease.is_released
        assert all(earlier.is_released for earlier in found)
        found.append(lease)
        raise ValueError

    retry = Retry(retries=2, backoff=0)
    runner = HierarchicalTaskPoolRunner(
        [Task(work, cost={"slots": 1})], CapacitySource(1), retry=retry, **isolation
    )
    assert await values(runner) == ["ValueError"]
    assert len({id(lease) for lease in found}) == 3
    with pytest.raises(RuntimeError, match="released"):
        found[0].settle(slots=0)


async def test_numeric_cost_has_no_lease_and_no_variable(
    isolation: dict[str, Any],
) -> None:
    def work() -> set[str]:
        with pytest.raises(RuntimeError, match=r'cost=\{"slots": 1\}'):
            current_lease()
        return {variable.name for variable in copy_context()} - outside

    outside = {variable.name for variable in copy_context()}
    tasks: list[Any] = [work, Task(work), Task(work, cost=2), Task(work, timeout=60)]
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(9), **isolation)
    found = await values(runner)
    assert len(found) == 4
    # Only the variable that marks the run, and only on paths where it costs nothing.
    assert all(names <= {"headrace.inside"} for names in found)
    with pytest.raises(RuntimeError, match="no lease here"):
        current_lease()


async def test_submitted_tasks_have_their_own_lease(
    isolation: dict[str, Any],
) -> None:
    queue: PushPullBufferObj[Any] = PushPullBufferObj()

    def has_lease() -> bool:
        try:
            current_lease()
        except RuntimeError:
            return False
        return True

    async def spawns() -> list[Any]:
        assert has_lease()
        queue.sink.next_nowait(Task(has_lease))
        queue.sink.next_nowait(Task(held, cost={"slots": 2}))
        inner = HierarchicalTaskPoolRunner([has_lease], CapacitySource(1), **isolation)
        return await inner.run()

    await queue.sink.next(Task(spawns, cost={"slots": 1}))
    runner = HierarchicalTaskPoolRunner(queue.source, CapacitySource(9), **isolation)
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
async def test_token_estimate_is_settled_by_the_call(isolation: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()

    async def seconds(settles: bool) -> float:
        start = loop.time()
        model = CapacitySource({"slots": 20, "tokens": Rate(6_000, burst=1_500)}, clock=loop.time)

        async def call_model(prompt: int) -> int:
            if settles:
                current_lease().settle(tokens=300)
            return prompt

        results = SourceIterObj(range(41)).map_pool(
            call_model, model, cost={"slots": 1, "tokens": 1_500}, **isolation
        )
        assert await results.count() == 41
        return loop.time() - start

    # The first call has the burst; each other waits for the tokens that the previous one was charged.
    assert await seconds(settles=False) == pytest.approx(40 * 1_500 / 100)
    assert await seconds(settles=True) == pytest.approx(40 * 300 / 100)
