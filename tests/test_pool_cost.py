"""A cost of a task may be a mapping of the user's: what it raises when it is read costs its own task at most, and no run hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, Task
from tests.pool_support import one, quiet

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator

pytestmark = [
    pytest.mark.usefixtures("way"),
]


class Odd(BaseException):
    """Is no `Exception`."""


ERRORS = [asyncio.CancelledError, Odd, KeyboardInterrupt, SystemExit]
"""The last two end the program."""


class Fickle(Mapping[str, int]):
    """One slot. That it says, but for one time."""

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


async def check(tasks: list[Task], cost: Fickle, *, busy: bool = False) -> None:
    """Runs two tasks, of which the first has that cost and gives 1, and the second gives 2; nobody but the first hears of the cost.

    If it is `busy`, others have the capacity when they come.
    """
    capacity = CapacitySource(1)
    lease = capacity.acquire_nowait() if busy else None
    runner = HierarchicalTaskPoolRunner(tasks, capacity)
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
async def test_cost_that_raises_costs_its_task_alone(
    error: type[BaseException], number: int, busy: bool
) -> None:
    cost = Fickle(number, error)
    await check([Task(one, cost=cost), Task(two)], cost, busy=busy)
    assert cost.raised is not None or number > 1


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("error", ERRORS)
async def test_cost_that_raises_when_its_task_is_called_again_costs_it_alone(
    error: type[BaseException], number: int, busy: bool
) -> None:
    failed = False

    async def fails() -> int:
        nonlocal failed
        if not failed:
            failed = True
            raise OSError
        return 1

    async def lasts() -> int:
        # It has the capacity when the other is to be called again.
        await quiet()
        return 2

    cost = Fickle(number, error)
    first = Task(fails, cost=cost, retry=Retry(1, on=OSError, backoff=0))
    await check([first, Task(lasts)], cost, busy=busy)
    assert cost.raised is not None or number > 2


@pytest.mark.parametrize("error", ERRORS)
async def test_cost_that_raises_after_a_pause_costs_its_task_alone(
    error: type[BaseException],
) -> None:
    cost = Fickle(1, error)
    runner = HierarchicalTaskPoolRunner([Task(one, cost=cost)], CapacitySource(1))
    runner.pause()
    try:
        async with asyncio.timeout(10), runner.run_tasks() as progress:
            await quiet()
            runner.resume()
            told = [envelope.error async for envelope in progress]
    except (KeyboardInterrupt, SystemExit) as ended:
        told = [ended]
    assert cost.raised is not None
    assert told == [cost.raised]
    assert (runner.capacity.held, runner.capacity.waiting) == (0, 0)


class Refusing(CapacitySource):
    """A capacity of another class, which raises what it was given."""

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
async def test_capacity_that_raises_while_a_task_waits_costs_that_task_alone(
    error: type[BaseException],
) -> None:
    capacity = Refusing(1)
    capacity.error = error("torn")
    runner = HierarchicalTaskPoolRunner([one], capacity)
    try:
        async with asyncio.timeout(10), runner.run_tasks() as progress:
            told = [envelope.error async for envelope in progress]
    except (KeyboardInterrupt, SystemExit) as ended:
        told = [ended]
    assert told == [capacity.error]
