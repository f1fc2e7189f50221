"""A task's cost may be a user-defined mapping. If reading it raises an error, only its own task fails, and no run hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, Task
from tests.pool_support import ISOLATIONS, one, quiet

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator

pytestmark = [
    pytest.mark.usefixtures("task_path"),
    pytest.mark.parametrize("isolation", ISOLATIONS),
]


class Odd(BaseException):
    """An error that is no `Exception`."""


ERRORS = [asyncio.CancelledError, Odd, KeyboardInterrupt, SystemExit]
"""The last two end the program."""


class RaisingCost(Mapping[str, int]):
    """A cost of one slot that raises an error when it is read for the given time."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.error = error
        self.raised: BaseException | None = None
        self._left = number

    def __getitem__(self, name: str) -> int:
        return {"slots": 1}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["slots"])

    def __len__(self) -> int:
        return 1

    def items(self) -> ItemsView[str, int]:
        self._left -= 1
        if self._left == 0:
            self.raised = self.error("torn")
            raise self.raised
        return super().items()


async def check(
    tasks: list[Task], cost: RaisingCost, isolation: dict[str, Any], *, busy: bool = False
) -> None:
    """Run two tasks. The first has that cost and returns 1, the second returns 2; only the first fails if the cost raises.

    If `busy`, the capacity is held elsewhere when they are queued.
    """
    capacity = CapacitySource(1)
    lease = capacity.acquire_nowait() if busy else None
    runner = HierarchicalTaskPoolRunner(tasks, capacity, **isolation)
    values: dict[int, Any] = {}
    ended: BaseException | None = None
    try:
        async with asyncio.timeout(10), runner.run_tasks() as progress:
            if lease is not None:
                await quiet()
                lease.release()
            async for envelope in progress:
                values[envelope.task_id] = envelope.error or envelope.value
    except (KeyboardInterrupt, SystemExit) as error:
        ended = error
    assert (capacity.held, capacity.waiting) == (0, 0)
    if isinstance(cost.raised, (KeyboardInterrupt, SystemExit)):
        assert ended is cost.raised
        assert 1 not in values
    else:
        assert ended is None
        assert values == {1: cost.raised or 1, 2: 2}


async def two() -> int:
    return 2


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("error", ERRORS)
async def test_raising_cost_fails_only_its_task(
    error: type[BaseException], number: int, busy: bool, isolation: dict[str, Any]
) -> None:
    cost = RaisingCost(number, error)
    await check([Task(one, cost=cost), Task(two)], cost, isolation, busy=busy)
    assert cost.raised is not None or number > 1


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("error", ERRORS)
async def test_cost_raising_at_retry_fails_only_its_task(
    error: type[BaseException], number: int, busy: bool, isolation: dict[str, Any]
) -> None:
    failed = False

    async def fails() -> int:
        nonlocal failed
        if not failed:
            failed = True
            raise OSError
        return 1

    async def lasts() -> int:
        # It holds the capacity when the other task is retried.
        await quiet()
        return 2

    cost = RaisingCost(number, error)
    first = Task(fails, cost=cost, retry=Retry(1, on=OSError, backoff=0))
    await check([first, Task(lasts)], cost, isolation, busy=busy)
    assert cost.raised is not None or number > 2


@pytest.mark.parametrize("error", ERRORS)
async def test_cost_raising_after_pause_fails_only_its_task(
    error: type[BaseException], isolation: dict[str, Any]
) -> None:
    cost = RaisingCost(1, error)
    runner = HierarchicalTaskPoolRunner([Task(one, cost=cost)], CapacitySource(1), **isolation)
    runner.pause()
    try:
        async with asyncio.timeout(10), runner.run_tasks() as progress:
            await quiet()
            runner.resume()
            errors = [envelope.error async for envelope in progress]
    except (KeyboardInterrupt, SystemExit) as ended:
        errors = [ended]
    assert cost.raised is not None
    assert errors == [cost.raised]
    assert (runner.capacity.held, runner.capacity.waiting) == (0, 0)


class Refusing(CapacitySource):
    """A capacity whose `acquire` raises a given error."""

    error: BaseException | None = None

    def acquire_nowait(self, *_: Any, **__: Any) -> Any:
        return None

    def acquire(self, *_: Any, **__: Any) -> Any:
        async def refuses() -> None:
            await asyncio.sleep(0)
            assert self.error is not None
            raise self.error

        return refuses()


@pytest.mark.parametrize("error", ERRORS)
async def test_raising_capacity_fails_only_the_waiting_task(
    error: type[BaseException], isolation: dict[str, Any]
) -> None:
    capacity = Refusing(1)
    capacity.error = error("torn")
    runner = HierarchicalTaskPoolRunner([one], capacity, **isolation)
    try:
        async with asyncio.timeout(10), runner.run_tasks() as progress:
            errors = [envelope.error async for envelope in progress]
    except (KeyboardInterrupt, SystemExit) as ended:
        errors = [ended]
    assert errors == [capacity.error]
