"""The warning of stuck trees: each holder of a node waits for that node itself.

The usual cause is a task of a pool that starts another pool under its own capacity, and waits for it. When all slots are held by such
tasks, none of their inner runs can call a task, and no slot is ever released.

A tree is watched only while it has waiters. Its first waiter starts the timer of its event loop, which ends when no tree there has any.
At each call the watch looks for a node whose slots are all held by tasks that wait for the node. It warns if two looks in succession find
the same one, since a look may fall between the release of a slot and its next grant.

A task *waits for a node* if one of these holds:

- It has a request that lacks slots of the node.
- It is suspended in the pull of a run that has no unread events, whose tasks all hold slots of the node or wait for them, and that has
  a task that lacks slots of the node.
- It awaits other asyncio tasks, directly or by `gather()`, `wait()` or a `TaskGroup`, and all of those that have not ended wait for it.

Everything else counts as progress, such as a timer, input, or a task that executes now. So the warning is never wrong about a program
whose state it can see; it may miss one that waits by other means.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from headrace._core import known_tasks, tree_activity, tree_unwatched
from headrace._internal.await_chain import chain_of, foreign_objects
from headrace._internal.idle_timer import call_later_idle
from headrace.capacity._listing import TreeListing
from headrace.capacity.limits import SLOTS
from headrace.errors import DeadlockWarning, HeadraceError
from headrace.pool._live import live_runs, place_of, tasks_of

if TYPE_CHECKING:
    from weakref import ref

    from headrace._core import TreeRef
    from headrace.capacity._listing import ListedNode
    from headrace.pool._live import LiveRun, LiveTask

INTERVAL = 2.0
"""The seconds between two looks at a tree with waiters."""

MOST = 2_000
"""The number of waiters above which a tree is only looked at while it grants nothing."""


Episode: TypeAlias = tuple[int, frozenset[int]]
"""A node that is stuck, and the permits that hold its slots."""


class LoopWatch:
    """Looks at the trees of one event loop that have waiters. It refers neither to the trees nor to the loop."""

    def __init__(self) -> None:
        self._watches: WeakKeyDictionary[TreeRef, Watch] = WeakKeyDictionary()
        self._has_timer = False

    def add(self, tree: TreeRef, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a tree."""
        self._watches[tree] = Watch()
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._has_timer:
            self._has_timer = True
            call_later_idle(loop, INTERVAL, self._look)

    def _look(self) -> None:
        self._has_timer = False
        stuck: list[Stuck] = []
        for tree, watch in list(self._watches.items()):
            try:
                found = watch.look(tree)
            except HeadraceError:
                # The tree belongs to the parent of this process, or is broken.
                del self._watches[tree]
                continue
            if not watch.is_over:
                stuck += [] if found is None else [found]
                continue
            del self._watches[tree]
            tree_unwatched(tree)
        if self._watches:
            self._set_timer(asyncio.get_running_loop())
        for one in stuck:
            # The warning may be turned into an error, which the event loop reports.
            warnings.warn(str(one), DeadlockWarning, stacklevel=2)


class Watch:
    """The looks at one tree."""

    def __init__(self) -> None:
        self.is_over: bool = False
        """Whether the tree has no waiter left."""
        self._granted = -1
        # The episode of the last look, and the one that was warned of.
        self._found: Episode | None = None
        self._warned: Episode | None = None

    def look(self, tree: TreeRef) -> Stuck | None:
        """Return a node to warn of."""
        granted, waiting = tree_activity(tree)
        self.is_over = not waiting
        is_idle, self._granted = granted == self._granted, granted
        if self.is_over or (not is_idle and waiting > MOST):
            return None
        stuck = Stuck.find(tree)
        before, self._found = self._found, None if stuck is None else stuck.episode
        if stuck is None or before != stuck.episode or stuck.episode == self._warned:
            return None
        self._warned = stuck.episode
        return stuck


class Stuck:
    """A node whose slots are all held by tasks that wait for it.

    Args:
        node: The node.
        permits: The permits that hold its slots.
        reasons: The names of the tasks, each with what it waits for.
    """

    def __init__(self, node: ListedNode, permits: set[int], reasons: list[str]) -> None:
        self._node = node
        self._reasons = reasons
        self.episode: Episode = node.number, frozenset(permits)

    def __str__(self) -> str:
        shown = "; ".join(self._reasons[:10])
        more = f"; and {len(self._reasons) - 10} more" if len(self._reasons) > 10 else ""
        return (
            f"{self._node.label} is stuck: all of its slots are held by tasks that wait for it: {shown}{more}. "
            "Give the inner work a capacity of its own, or wrap the wait in `async with current_lease().suspended():`"
        )

    @classmethod
    def find(cls, tree: TreeRef) -> Stuck | None:
        """Return the first stuck node of a tree."""
        listing = TreeListing.of(tree)
        blocked = {
            node.number: node
            for waiter in listing.waiters
            for node, reason in listing.lacking(waiter)
            if reason == SLOTS
        }
        look = _Look(tree, listing) if blocked else None
        for node in blocked.values():
            permits = {lease.permit for lease in listing.leases_under(node)}
            if look is not None and (reasons := look.reasons(node, permits)):
                return cls(node, permits, reasons)
        return None


class _Look:
    """One look at a tree and the runs of the process."""

    def __init__(self, tree: TreeRef, listing: TreeListing) -> None:
        self._listing = listing
        self._runs = {id(run.events.unread): run for run in live_runs()}
        self._tasks: dict[int, list[LiveTask]] = {}
        self._nodes: dict[int, int] = {}
        # The name and the asyncio task of each permit that a task of a run holds.
        self._holders: dict[int, tuple[str, asyncio.Task[Any] | None]] = {}
        for run in self._runs.values():
            of, node = place_of(run)
            if of is not tree:
                continue
            self._nodes[id(run)] = node
            self._tasks[id(run)] = tasks = tasks_of(run)
            for one in tasks:
                if one.permit:
                    name = run.config.name_of(one.id, one.key)
                    self._holders[one.permit] = name, one.task
        self._owners = dict(known_tasks())

    def reasons(self, node: ListedNode, permits: set[int]) -> list[str]:
        """Return why each holder of a node waits for it; empty if one of them does not."""
        found: list[str] = []
        for lease in self._listing.leases:
            if lease.permit not in permits:
                continue
            name, task = self._holders.get(lease.permit, ("", None))
            if task is None and lease.owner is not None:
                task = self._owners.get(lease.owner)
                name = "" if task is None else f"task {task.get_name()!r}"
            reason = self._wait(task, node, permits, set())
            if reason is None:
                return []
            found.append(f"{name} {reason}")
        return found

    def _wait(
        self,
        task: asyncio.Task[Any] | None,
        node: ListedNode,
        permits: set[int],
        seen: set[int],
    ) -> str | None:
        """Return the wait of a task for a node, in words; None if it does not wait for it."""
        if task is None or task.done() or id(task) in seen:
            return None
        loop = task.get_loop()
        if loop.is_closed() or asyncio.current_task(loop) is task:
            return None
        seen.add(id(task))
        chain = chain_of(task)
        last = chain[-1] if chain else None
        if isinstance(last, asyncio.Future) and last.done():
            # The task continues in the next iteration of the event loop.
            return None
        if any(self._owners.get(owner) is task for owner in self._requesters(node)):
            return "requests it again"
        for one in foreign_objects(chain[-2:]):
            run = self._runs.get(id(one))
            if run is not None:
                is_waiting = self._is_run_waiting(run, node, permits)
                return f"waits for run {run.config.name}" if is_waiting else None
        if last is None or not isinstance(last, asyncio.Future):
            return None
        # Without the object, checkers do not know its result type.
        awaited = _tasks_behind(cast("Any", last), loop)
        if awaited and all(self._wait(one, node, permits, seen) for one in awaited):
            return f"waits for task {awaited[0].get_name()!r}"
        return None

    def _requesters(self, node: ListedNode) -> list[int]:
        """Return the owners of the requests that lack slots of a node."""
        waiters = (waiter for waiter in self._listing.waiters if waiter.owner is not None)
        return [
            cast("int", waiter.owner)
            for waiter in waiters
            if (node, SLOTS) in self._listing.lacking(waiter)
        ]

    def _is_run_waiting(self, run: LiveRun, node: ListedNode, permits: set[int]) -> bool:
        tasks = self._tasks.get(id(run))
        if not tasks or len(run.events) or run.ending or run.config.paused:
            return False
        for one in tasks:
            if one.state == "requesting":
                continue
            if not one.permit or one.permit not in permits:
                return False
        here = self._nodes[id(run)]
        return any(one.state == "requesting" for one in tasks) and any(
            waiter.node == here and (node, SLOTS) in self._listing.lacking(waiter)
            for waiter in self._listing.waiters
        )


def _tasks_behind(
    future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
) -> list[asyncio.Task[Any]]:
    """Return the tasks that have not ended and whose end resolves a future, as far as they are known."""
    if isinstance(future, asyncio.Task):
        return [future]
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:
        return []
    return [task for task in tasks if _leads_to(task, future)]


def _leads_to(task: asyncio.Task[Any], future: asyncio.Future[Any]) -> bool:
    """Return whether a done-callback of a task refers to a future."""
    callbacks: list[Any] = [entry[0] for entry in getattr(task, "_callbacks", None) or ()]
    left: list[tuple[Any, int]] = [(callback, 0) for callback in callbacks]
    for _ in range(200):
        if not left:
            break
        one, depth = left.pop()
        if one is future:
            return True
        if depth < 4 and not isinstance(one, (asyncio.Future, asyncio.AbstractEventLoop, type)):
            left += [(referent, depth + 1) for referent in islice(gc.get_referents(one), 50)]
    return False


def watch(tree: ref[TreeRef], loop: asyncio.AbstractEventLoop) -> None:
    """Watch a tree that gets its first waiter."""
    referent = tree()
    if referent is not None:
        _watches.setdefault(loop, LoopWatch()).add(referent, loop)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWatch] = WeakKeyDictionary()
