"""Tasks in groups, each group under a child of one common capacity. `map` makes a `Groups` for `--group-by`.

Each active group has its own queue and its own runner, on a child of the common capacity. The capacity tree therefore
shares the limit task by task, by the weights of the groups. A large group does not delay the others: their tasks are in
other queues. When a group has no task left, its runner ends and its child is dropped. The failures of all groups are
counted together: if they stop one group, they stop all.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from headrace.capacity.node import CapacitySource
from headrace.cli.format import shorten
from headrace.cli.inflight import InFlight
from headrace.cli.record_pool import RecordPool
from headrace.cli.run_options import get_field
from headrace.errors import RunStopped
from headrace.pool.events import EnvelopeType
from headrace.pull.source import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from headrace.pool.failure_limits import FailureLimits
    from headrace.pool.options import RunnerOptions
    from headrace.task.task import Task


class Groups:
    """Runs the tasks of many groups.

    Order: the input order within a group; the order of grants by the common capacity among groups.
    Bound: `window` tasks that are read and not started, over all groups; at that number, reading stops. An active group
    holds about 15 KB.
    Cost: that of the runner, and a new runner each time an idle group becomes active.
    Cancel safety: a cancelled `run()` cancels running tasks and waits until they have stopped.

    Args:
        capacity: the parent capacity of all groups.
        limit: how many tasks of one group may run at once.
        window: how many tasks may be queued, a positive number.
        limits: the limits on failures of all groups.
        options: further options of each runner.
        weights: the weights of groups by name; the default is 1.
    """

    def __init__(
        self,
        capacity: CapacitySource,
        limit: int,
        window: int,
        limits: FailureLimits,
        options: RunnerOptions,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._capacity = capacity
        self._limit = limit
        self._in_flight = InFlight(window)
        self._options = options
        self._weights = weights or {}
        self._limits = limits
        self._groups: dict[str, _Group] = {}
        self._reading: asyncio.Task[None] | None = None
        self._stopped: RunStopped | None = None
        self._ended = False

    @property
    def waiting(self) -> int:
        """Tasks that are read and not started."""
        return self._in_flight.count

    def running(self) -> Mapping[str, float]:
        """Return the number of running tasks of each active group."""
        return {name: group.capacity.held for name, group in self._groups.items()}

    async def run(self, tasks: AsyncIterator[tuple[str, Task]]) -> None:
        """Run each task in its group. Call it once.

        Raises:
            RunStopped: Failures stopped all groups, and the running calls have ended.
        """
        async with asyncio.TaskGroup() as runs:
            self._reading = runs.create_task(
                self._read(tasks, runs), name="headrace map: input of groups"
            )
        if self._stopped is not None:
            raise self._stopped

    async def _read(self, tasks: AsyncIterator[tuple[str, Task]], runs: asyncio.TaskGroup) -> None:
        """Queue each task in its group, and run the groups that are not active."""
        while True:
            await self._in_flight.wait_for_space()
            try:
                name, task = await anext(tasks)
            except StopAsyncIteration:
                break
            group = self._groups.get(name)
            if group is None:
                group = self._add(name)
                runs.create_task(self._run(group), name=f"{group.title}: events")
            group.queue.append(task)
            group.changed.set()
            self._in_flight.add()
        self._ended = True
        for group in self._groups.values():
            group.changed.set()

    def _add(self, name: str) -> _Group:
        weight = self._weights.get(name, 1.0)
        capacity = CapacitySource(self._limit, self._capacity, name=name, weight=weight)
        self._groups[name] = group = _Group(name, capacity)
        return group

    async def _run(self, group: _Group) -> None:
        source = SourceIterObj(self._tasks(group))
        options: RunnerOptions = {**self._options, "name": group.title}
        runner = RecordPool(source, group.capacity, self._limits, options)
        async with source, runner.run_tasks() as progress:
            try:
                async for envelope in progress:
                    if envelope.type is not EnvelopeType.INTERMEDIATE:
                        group.unfinished -= 1
                        group.changed.set()
            except RunStopped as stopped:
                # The runs of the other groups end by themselves: an error here would cancel them.
                self._stopped = self._stopped or stopped
                if self._reading is not None:
                    self._reading.cancel()

    async def _tasks(self, group: _Group) -> AsyncIterator[Task]:
        """Yield the tasks of a group, until its queue is empty and none of its tasks runs."""
        while True:
            while not group.queue:
                if self._ended:
                    return
                if not group.unfinished:
                    # A later task of this name starts a new group; none of this one is running.
                    del self._groups[group.name]
                    return
                group.changed.clear()
                await group.changed.wait()
            group.unfinished += 1
            yield group.queue.popleft()
            # The runner pulls the next task once this one has started.
            self._in_flight.remove()


class _Group:
    """The state of an active group."""

    def __init__(self, name: str, capacity: CapacitySource) -> None:
        self.name = name
        self.capacity = capacity
        self.title = f"headrace map: {shorten(name, 80)}"
        self.queue: deque[Task] = deque()
        # Tasks that left the queue and have not ended.
        self.unfinished = 0
        # Set when a task is queued, when one has ended, and at the end of the input.
        self.changed = asyncio.Event()


def group_name(value: Any, field: str) -> str:
    """Return the name of a record's group: the value of its field as text, or as JSON if it is not a string.

    Thus 1 and `"1"` are one group, as `--weight 1=3` cannot tell them apart. A lone surrogate is escaped: it is not
    allowed in a name.

    Raises:
        ValueError: the record has no such field.
    """
    value = get_field(value, field)
    if not isinstance(value, str):
        return json.dumps(value, sort_keys=True)
    return value.encode(errors="backslashreplace").decode()
