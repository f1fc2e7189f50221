"""Tasks in groups, each under a capacity of its own, and all under one.

Each group that has something to do has a runner over its own queue, on a child of the common capacity. So it is the
tree that decides whose turn it is, task by task and by the weights, and a group with much to do keeps nobody waiting:
what waits behind its tasks in the input stands in another queue. When a group has nothing left, its runner ends and its
child is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from headrace.capacity.node import CapacitySource
from headrace.cli.format import shortened
from headrace.cli.inflight import Window
from headrace.cli.run_options import field_of
from headrace.pool.events import EnvelopeType
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pull.source import SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from headrace.pool.options import RunnerOptions
    from headrace.task.task import Task


class Groups:
    """Runs the tasks of many groups.

    Order: within a group, the order of the input; among groups, as their common capacity has it.
    Bound: `window` tasks that were read and not called, in all groups together; when there are so many, nothing is read. A
    group holds some 15 KB while it has something to do.
    Cost: a runner for a group that has something to do again; else that of the runner.
    Cancel safety: a cancelled `run` cancels what runs, and waits until it has stopped.

    Args:
        capacity: what all groups are under.
        limit: how many tasks of one group may run at once.
        window: how many tasks may wait, a positive number.
        options: what each runner is told besides.
        weights: the share of a group beside that of the others, by its name; 1 for those that are not named.
    """

    def __init__(
        self,
        capacity: CapacitySource,
        limit: int,
        window: int,
        options: RunnerOptions,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._capacity = capacity
        self._limit = limit
        self._window = Window(window)
        self._options = options
        self._weights = weights or {}
        self._groups: dict[str, _Group] = {}
        self._ended = False

    @property
    def waiting(self) -> int:
        """How many tasks were read and are not called."""
        return self._window.held

    def held(self) -> Mapping[str, float]:
        """How many tasks of each group run, of those that have something to do."""
        return {name: group.capacity.held for name, group in self._groups.items()}

    async def run(self, tasks: AsyncIterator[tuple[str, Task]]) -> None:
        """Runs every task, under the group that is named beside it. To be called once."""
        async with asyncio.TaskGroup() as runs:
            while True:
                await self._window.room()
                try:
                    name, task = await anext(tasks)
                except StopAsyncIteration:
                    break
                group = self._groups.get(name)
                if group is None:
                    group = self._add(name)
                    runs.create_task(self._run(group), name=f"{group.title}: envelopes")
                group.queue.append(task)
                group.changed.set()
                self._window.enter()
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
        runner = HierarchicalTaskPoolRunner(source, group.capacity, **options)
        async with source, runner.run_tasks() as progress:
            async for envelope in progress:
                if envelope.type is not EnvelopeType.INTERMEDIATE:
                    group.taken -= 1
                    group.changed.set()

    async def _tasks(self, group: _Group) -> AsyncIterator[Task]:
        """The source of a group: its queue, until there is nothing in it and nothing that runs."""
        while True:
            while not group.queue:
                if self._ended:
                    return
                if not group.taken:
                    # What comes now begins a group of the same name, with nothing running in this one.
                    del self._groups[group.name]
                    return
                group.changed.clear()
                await group.changed.wait()
            group.taken += 1
            yield group.queue.popleft()
            # It was called: nothing is pulled before that.
            self._window.leave()


class _Group:
    """What is known of a group while it has something to do."""

    def __init__(self, name: str, capacity: CapacitySource) -> None:
        self.name = name
        self.capacity = capacity
        self.title = f"headrace map: {shortened(name, 80)}"
        self.queue: deque[Task] = deque()
        # How many were taken out of the queue and have not ended.
        self.taken = 0
        # Set when a task was put, when one has ended, and when no more will come.
        self.changed = asyncio.Event()


def group_of(value: Any, field: str) -> str:
    """The name of the group that a record belongs to: the value of its field, as text; what is no text, as JSON.

    So 1 and `"1"` are one group: to `--weight 1=3` they are the same. A lone surrogate, which no name can have, is escaped.

    Raises:
        ValueError: it has no such field.
    """
    found = field_of(value, field)
    if not isinstance(found, str):
        return json.dumps(found, sort_keys=True)
    return found.encode(errors="backslashreplace").decode()
