"""`explain()`: the waits of the process as text: what waits for what, what holds what, and since when.

Active runs register themselves (`pool._live`). All other objects are found through the garbage collector, which knows every one of
them, so nothing is registered, and no program pays for a text that it never prints. The state is read in small steps, each under the
GIL or one lock of the core, and no Python code runs under such a lock. So the text may mix states of slightly different moments.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from headrace._core import Buffer, Capacity, Queue, Signal, known_tasks, tree_of
from headrace._internal.await_chain import (
    chain_of,
    foreign_objects,
    frames_of,
    position,
    thread_frames,
)
from headrace._internal.live_objects import live_objects
from headrace._internal.reprs import short_repr
from headrace.capacity._listing import TreeListing, describe_use, wait_for_quota
from headrace.graph.graph import DependencyGraph
from headrace.graph.node import DependencyState
from headrace.pool._live import live_runs, place_of, tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace._core import TreeRef
    from headrace.capacity._listing import ListedLease, ListedNode, ListedWaiter
    from headrace.graph.node import DependencyNode
    from headrace.pool._live import LiveRun, LiveTask

T = TypeVar("T")
E = TypeVar("E", "ListedLease", "ListedWaiter")

MOST = 20
"""The number of entries of one kind that are listed; the others are counted."""


def explain() -> str:
    """Return the waits of the process as text: what waits for what, what holds what, and since when.

        print(explain())

    It covers the runs of pools, their tasks with the top of their stacks, trees of capacities, buffers, queues, signals,
    dependency graphs, threads of pools and the other asyncio tasks of running event loops. At most 20 entries of one kind
    are listed; the rest is counted. A time is unknown where reading the clock would cost the program time: without a
    waiter, the clock is read at one grant in sixteen.

    Law: nothing is changed: no coroutine takes a step, and no lock is held while Python code runs.
    Order: runs first, then capacities, then all others. The longest waits come first.
    Bound: none is kept. The text grows with the number of runs and capacities in use.
    Cost: O(objects of the process), since they are found through the garbage collector; a program that does not call it
    pays nothing.
    Cancel safety: it does not wait. Any thread and any signal handler may call it, also while the event loop is blocked.
    """
    found = _Explanation()
    try:
        return found.text()
    finally:
        # They include that of `__init__`, and so refer to this object: a cycle, with all locals of the program.
        found.frames.clear()


class _Explanation:
    """The state that is read for one text."""

    def __init__(self) -> None:
        self.runs = live_runs()
        self.tasks = {id(run): [_known(run, one) for one in tasks_of(run)] for run in self.runs}
        lists = live_objects(
            Buffer, Queue, Signal, DependencyGraph, Capacity, asyncio.AbstractEventLoop
        )
        self.buffers: list[Buffer[Any]] = lists[0]
        self.queues: list[Queue[Any]] = lists[1]
        self.signals: list[Signal[Any]] = lists[2]
        self.graphs: list[DependencyGraph] = lists[3]
        self.capacities: list[Capacity] = lists[4]
        loops: list[asyncio.AbstractEventLoop] = lists[5]
        self.loops = [loop for loop in loops if loop.is_running()]
        self.frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        self.events: dict[int, LiveRun] = {id(run.events.unread): run for run in self.runs}
        self.owners = dict(known_tasks())
        # The names of objects that a task may wait for, and the tasks that wait for each.
        self.labels: dict[int, str] = {}
        self.waiters: dict[int, list[str]] = {}
        # The identities of the asyncio tasks that belong to a run.
        self.inner: set[int] = set()
        for run in self.runs:
            self.labels[id(run.events.unread)] = f"events of run {run.config.name}"
            self.inner.add(id(run.feeder))
            self.inner.update(id(one.task) for one in self.tasks[id(run)])
        for kind, found in (
            ("buffer", self.buffers),
            ("queue", self.queues),
            ("signal", self.signals),
        ):
            for number, one in enumerate(found, 1):
                self.labels[id(one)] = f"{kind} {number}"
        for capacity in self.capacities:
            try:
                name = capacity.name
            except RuntimeError:
                # Its `__init__` has not been called.
                continue
            self.labels[id(capacity)] = (
                "an unnamed capacity" if name is None else f"capacity {name!r}"
            )
        self.others: list[tuple[str, str]] = []
        self._find_waits()

    def _find_waits(self) -> None:
        for run in self.runs:
            for one in self.tasks[id(run)]:
                self._note(chain_of(one.task), self.task_name(run, one))
            self._note(chain_of(run.feeder), f"the feeder of run {run.config.name}")
        for loop in self.loops:
            try:
                tasks = asyncio.all_tasks(loop)
            except RuntimeError:
                # Other threads kept changing the set.
                continue
            for task in sorted(tasks, key=lambda task: task.get_name()):
                if id(task) not in self.inner:
                    chain, name = chain_of(task), f"task {task.get_name()!r}"
                    self._note(chain, name)
                    if task is _current(loop):
                        self.others.append((name, "executes now"))
                    else:
                        self.others.append((name, self.suspended(chain, frames_of(chain))))

    def _note(self, chain: list[object], name: str) -> None:
        for one in foreign_objects(chain):
            if id(one) in self.labels:
                names = self.waiters.setdefault(id(one), [])
                if name not in names:
                    names.append(name)

    def suspended(self, chain: list[object], frames: list[Any]) -> str:
        """Describe a suspended coroutine: the top of its stack, and the object that it waits for."""
        where = position(frames)
        labels = [self.labels[id(one)] for one in foreign_objects(chain) if id(one) in self.labels]
        text = f"suspended at {where}" if where else "suspended"
        if labels:
            return f"{text}, waits for {labels[-1]}"
        last = chain[-1] if chain else None
        if isinstance(last, asyncio.Task):
            return f"{text}, waits for task {last.get_name()!r}"
        return text

    def task_name(self, run: LiveRun, one: LiveTask) -> str:
        """Return the name of a task of a run."""
        name = None if one.task is None else one.task.get_name()
        return run.config.describe_task(one.id, one.key, name)

    # Sections.

    def text(self) -> str:
        """Return the whole text."""
        lines = [f"headrace: process {os.getpid()}, {time.strftime('%Y-%m-%d %H:%M:%S')}"]
        sections: list[Callable[[], Iterable[str]]] = [
            self.blocked_loops,
            self.all_runs,
            self.all_capacities,
            self.all_buffers,
            self.all_queues,
            self.all_signals,
            self.all_graphs,
            self.other_tasks,
        ]
        for section in sections:
            try:
                lines += section()
            except Exception as error:
                # A key, a clock or a name of the user's may raise.
                lines.append(f"({section.__name__} cannot be read: {error!r})")
        if len(lines) == 1:
            lines.append("nothing waits")
        return "\n".join(lines)

    def blocked_loops(self) -> Iterator[str]:
        """Describe the event loops of other threads that execute a task now."""
        loops = {id(run.loop): run for run in self.runs if run.thread != threading.get_ident()}
        for run in loops.values():
            task = _current(run.loop)
            frame = self.frames.get(run.thread)
            if task is not None and frame is not None:
                name, where = task.get_name(), position(thread_frames(frame))
                yield f"event loop of run {run.config.name}: executes {name!r} now, at {where}"

    def all_runs(self) -> Iterator[str]:
        """Describe the runs."""
        for run in self.runs:
            tasks = self.tasks[id(run)]
            now = run.clock()
            yield f"run {run.config.name}: {self.feeding(run, tasks, now)}"
            yield from _listed(tasks, partial(self.task, run, now))
            for thread, name in run.executors.busy_threads():
                where = position(thread_frames(self.frames.get(thread)))
                yield f"  thread of {name}: at {where}"

    def feeding(self, run: LiveRun, tasks: list[LiveTask], now: float) -> str:
        """Describe the wait of the feeder of a run, and its counts."""
        counts = ", ".join(
            f"{number} {state}"
            for state in _STATES
            if (number := sum(one.state == state for one in tasks))
        )
        counts = counts or "no tasks"
        config = run.config
        unread = f"{len(run.events)} unread events"
        if run.ending:
            return f"{counts}; is ending, and waits for its tasks"
        if run.draining:
            return f"{counts}; is draining, and waits for its tasks"
        if config.paused:
            return f"{counts}; is paused: call resume(){_since(config.paused_at, time.monotonic())}"
        if run.blocked is not None:
            reason, since = run.blocked
            if reason == "gate":
                reason = self.gate(run, tasks)
            else:
                reason = f"space for events: {unread}, of max_buffered={config.max_buffered}; no consumer reads them"
            return f"{counts}; waits for {reason}{_since(since, now)}"
        if any(one.state == "requesting" for one in tasks):
            return f"{counts}; {unread}; waits for {self.labels.get(id(config.capacity), 'its capacity')}"
        if not run.is_feeding:
            return f"{counts}; {unread}; its source has ended, and it waits for its tasks"
        chain = chain_of(run.feeder)
        return (
            f"{counts}; {unread}; waits for its source, {self.suspended(chain, frames_of(chain))}"
        )

    def gate(self, run: LiveRun, tasks: list[LiveTask]) -> str:
        """Return the reason for which no task may be called."""
        if (executor := run.executors.awaited()) is not None:
            return f"a slot of {executor!r}"
        if sum(one.state == "backing off" for one in tasks) >= run.config.max_buffered:
            return "tasks that back off"
        if sum(one.state == "following" for one in tasks) >= run.config.max_buffered:
            return "tasks that wait for equal ones"
        if run.config.window is not None:
            return (
                f"the first task that has not ended: window={run.config.window} tasks wait for it"
            )
        return "its waiting tasks"

    def task(self, run: LiveRun, now: float, one: LiveTask) -> str:
        """Describe a task of a run."""
        name = self.task_name(run, one)
        match one.state:
            case "requesting":
                label = self.labels.get(id(run.config.capacity), "its capacity")
                return f"{name}: waits for {label}{_since(one.queued, now)}"
            case "following":
                return f"{name}: waits for the call of an equal task{_since(one.queued, now)}"
            case "held":
                return f"{name}: waits to be called{_since(one.queued, now)}"
            case "backing off":
                left = (
                    "" if one.deadline is None else f"; the next one in {one.deadline - now:.1f} s"
                )
                return f"{name}: backs off after {one.attempt} calls{left}"
            case "submitted":
                return f"{name}: runs in an executor{_since(one.started, now)}"
            case "stepping":
                return f"{name}: executes now, called{_since(one.started, now)}"
            case _:
                chain = chain_of(one.task)
                return f"{name}: runs{_since(one.started, now)}, {self.suspended(chain, frames_of(chain))}"

    def all_capacities(self) -> Iterator[str]:
        """Describe the trees of capacities that are in use."""
        trees: dict[int, _TreeTasks] = {}
        for run in self.runs:
            tree, number = place_of(run)
            tasks = trees.setdefault(id(tree), _TreeTasks(tree))
            now = run.clock()
            for one in self.tasks[id(run)]:
                tasks.add(number, one, self.task_name(run, one), now)
        for capacity in self.capacities:
            try:
                tree, _ = tree_of(capacity)
            except RuntimeError:
                continue
            trees.setdefault(id(tree), _TreeTasks(tree))
        for tasks in trees.values():
            listing = TreeListing.of(tasks.tree)
            held, waiting = _by_node(listing.leases), _by_node(listing.waiters)
            oldest = max((waiter.waited for waiter in listing.waiters), default=0.0)
            for number, node in listing.nodes.items():
                leases, waiters = held.get(number, []), waiting.get(number, [])
                if leases or waiters or node.is_held_off:
                    yield from self.node(listing, node, tasks, leases, waiters, oldest)

    def node(
        self,
        listing: TreeListing,
        node: ListedNode,
        tasks: _TreeTasks,
        held: list[ListedLease],
        waiting: list[ListedWaiter],
        oldest: float,
    ) -> Iterator[str]:
        """Describe a node that is in use, with its leases and waiters. `oldest` is the longest wait in the tree."""
        uses = "; ".join(describe_use(node, resource) for resource in node.limits)
        yield "; ".join([f"{node.label}: {uses}", *node.states])
        stepping = iter(tasks.stepping.get(node.number, ()))
        requesting = iter(tasks.requesting.get(node.number, ()))

        def of_lease(lease: ListedLease) -> str:
            name, age = tasks.permits.get(lease.permit, ("", None))
            if not name and lease.owner is None:
                name = next(stepping, "")
            age = lease.held_for if age is None else age
            since = _at_least(oldest) if age is None else f" for {age:.1f} s"
            suspended = "" if lease.has_slots else ", suspended"
            return f"held: {_amounts(lease.cost)} by {name or self.owner(lease.owner)}{since}{suspended}"

        def of_waiter(waiter: ListedWaiter) -> str:
            other = "a request of a pool"
            name = self.owner(waiter.owner) if waiter.owner else next(requesting, other)
            lacks = _lacks(listing, waiter)
            return f"waits: {_amounts(waiter.cost)} for {name} for {waiter.waited:.1f} s{lacks}"

        yield from _listed(sorted(held, key=lambda one: -(one.held_for or 0.0)), of_lease)
        yield from _listed(sorted(waiting, key=lambda one: -one.waited), of_waiter)

    def owner(self, owner: int | None) -> str:
        """Return the name of the owner of a lease or a request."""
        if owner is None:
            return "an unknown holder (owner=None)"
        if owner % 2:
            return "a thread"
        task = self.owners.get(owner)
        return "a task that has ended" if task is None else f"task {task.get_name()!r}"

    def all_buffers(self) -> Iterator[str]:
        """Describe the buffers with waiters."""
        ours = {id(one) for run in self.runs for one in gc.get_referents(run.events.unread)}
        for buffer in self.buffers:
            if id(buffer) in ours:
                continue
            size, _, _, getters, putters = buffer.statistics()
            maxsize = buffer.maxsize
            count = f"{size} items" if maxsize is None else f"{size} of {maxsize} items"
            yield from self.ends(buffer, count, getters, putters)

    def all_queues(self) -> Iterator[str]:
        """Describe the queues with waiters."""
        for queue in self.queues:
            getters, putters, _, _ = queue._figures()
            yield from self.ends(queue, f"{queue.qsize()} items", getters, putters)

    def ends(
        self, one: Buffer[Any] | Queue[Any], count: str, getters: int, putters: int
    ) -> Iterator[str]:
        """Describe a buffer or a queue, if it has waiters."""
        label = self.labels[id(one)]
        if putters:
            yield f"{label}: full, {count}; {putters} producers wait and no consumer{self.names(one)}"
        elif getters:
            yield f"{label}: empty; {getters} consumers wait and no producer{self.names(one)}"

    def all_signals(self) -> Iterator[str]:
        """Describe the signals with waiters."""
        for signal in self.signals:
            if signal.waiting:
                yield f"{self.labels[id(signal)]}: {signal.waiting} wait for a value{self.names(signal)}"

    def names(self, one: object) -> str:
        """Return the names of the tasks that wait for an object."""
        names = self.waiters.get(id(one), [])
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        return f": {', '.join(names[:MOST])}{more}" if names else ""

    def all_graphs(self) -> Iterator[str]:
        """Describe the dependency graphs that are not finished."""
        for number, graph in enumerate(self.graphs, 1):
            if graph.finished:
                continue
            pending = graph.nodes(DependencyState.PENDING)
            others = [*graph.nodes(DependencyState.READY), *graph.nodes(DependencyState.RUNNING)]
            open_: dict[object, DependencyState] = {
                node.key: node.state for node in [*pending, *others]
            }
            counts = ", ".join(
                f"{count} {state.value}" for state, count in graph.counts().items() if count
            )
            yield f"dependency graph {number}: {counts}"
            yield from _listed(pending, partial(_pending, open_))
            yield from _listed(others, _started)

    def other_tasks(self) -> Iterator[str]:
        """Describe the asyncio tasks that are not part of a run."""
        if self.others:
            yield "other asyncio tasks:"
            yield from _listed(self.others, ": ".join)


class _TreeTasks:
    """The names of the tasks that use a tree."""

    def __init__(self, tree: TreeRef) -> None:
        self.tree = tree
        # By the number of the permit, with the time since the call.
        self.permits: dict[int, tuple[str, float | None]] = {}
        # By node: tasks that wait, and tasks whose permit cannot be read while their coroutine runs.
        self.requesting: dict[int, list[str]] = {}
        self.stepping: dict[int, list[str]] = {}

    def add(self, node: int, one: LiveTask, name: str, now: float) -> None:
        """Add a task of a run whose capacity is this node."""
        if one.permit:
            self.permits[one.permit] = name, None if one.started is None else now - one.started
        elif one.state == "requesting":
            self.requesting.setdefault(node, []).append(name)
        elif one.state == "stepping":
            self.stepping.setdefault(node, []).append(name)


_STATES = ("running", "stepping", "submitted", "requesting", "following", "held", "backing off")


def _known(run: LiveRun, one: LiveTask) -> LiveTask:
    # The engine takes the first step of a task before it stores the asyncio task.
    return (
        replace(one, task=_current(run.loop))
        if one.state == "stepping" and one.task is None
        else one
    )


def _by_node(entries: Iterable[E]) -> dict[int, list[E]]:
    """Return the leases or the waiters of each node."""
    found: dict[int, list[E]] = {}
    for entry in entries:
        found.setdefault(entry.node, []).append(entry)
    return found


def _current(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    return asyncio.current_task(loop) if loop.is_running() else None


def _since(since: float | None, now: float) -> str:
    return "" if since is None else f" for {max(0.0, now - since):.1f} s"


def _at_least(seconds: float) -> str:
    return f" for at least {seconds:.1f} s" if seconds else " for an unknown time"


def _amounts(cost: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {resource}" for resource, amount in cost.items())


def _lacks(listing: TreeListing, waiter: ListedWaiter) -> str:
    reasons: list[str] = []
    for node, reason in listing.lacking(waiter):
        left = wait_for_quota(node, reason, waiter.cost[reason]) if reason in waiter.cost else None
        reasons.append(f"{reason} of {node.label}{'' if not left else f', there in {left:.1f} s'}")
    text = f"; lacks {', '.join(reasons)}" if reasons else ""
    return f"{text}; its cost exceeds a limit" if waiter.is_parked else text


def _pending(open_: dict[object, DependencyState], node: DependencyNode) -> str:
    lacks = [f"{short_repr(key)} ({open_[key].value})" for key in node.depends_on if key in open_]
    more = f" and {len(lacks) - MOST} more" if len(lacks) > MOST else ""
    return f"node {short_repr(node.key)}: waits for {', '.join(lacks[:MOST])}{more}"


def _started(node: DependencyNode) -> str:
    if node.state is DependencyState.READY:
        return f"node {short_repr(node.key)}: ready, and was not taken"
    return f"node {short_repr(node.key)}: was taken, and was neither completed nor failed"


def _listed(entries: list[T], describe: Callable[[T], str]) -> Iterator[str]:
    for one in entries[:MOST]:
        yield f"  {describe(one)}"
    if len(entries) > MOST:
        yield f"  and {len(entries) - MOST} more"
