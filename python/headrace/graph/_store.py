"""`Ledger`: the nodes of a graph and their states.

Each node counts how many of those that it depends on are not completed, and knows those that depend on it. Settling a
node walks these once and forgets them. So every edge is walked once in the life of the graph, and nothing is ever
searched for what has become ready.

All of it is called under the lock of the graph, and calls nothing but the hash and the comparison of keys.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any

from headrace._internal.reprs import describe_value
from headrace._internal.sentinels import NOTHING
from headrace.graph._topology import check, cycle_error, path
from headrace.graph.node import DependencyState, Node
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from headrace.graph._events import News

_PENDING, _READY, _RUNNING, _COMPLETED, _FAILED, _ABORTED = DependencyState


class Ledger:
    """What a graph knows; says in its `news` what has become ready, and when nothing is left to do."""

    def __init__(self, news: News) -> None:
        self.nodes: dict[Hashable, Node] = {}
        """All nodes, in the order in which they were added."""
        self.ready: dict[Node, None] = {}
        """Those that are ready, in the order in which they became so."""
        self.counts: Counter[DependencyState] = Counter()
        self._news = news
        # Tasks of nodes that are not settled: they are told apart by nothing else when a runner reports.
        self._tasks: dict[int, Node] = {}
        # What was given out for nodes that are running, by its `id`. Values may be the same object for several nodes.
        self._given: dict[int, OrderedDict[Node, None]] = {}

    @property
    def is_finished(self) -> bool:
        """Whether all nodes are settled."""
        counts = self.counts
        return not (counts[_PENDING] or counts[_READY] or counts[_RUNNING])

    def find(self, key: Hashable) -> Node:
        """The node with this key. Raises ValueError: there is none."""
        node = self.nodes.get(key)
        if node is None:
            raise ValueError(f"key must be that of a node of this graph, got {describe_value(key)}")
        return node

    # Growing.

    def insert(self, wanted: Iterable[tuple[Hashable, Any, list[Hashable]]]) -> None:
        """Adds nodes, all or none: for each its key, its item and the keys of what it depends on."""
        batch = self._checked(wanted)
        check(batch)
        self.nodes.update({node.key: node for node in batch})
        # All at once, or the graph would seem finished where the first of them is aborted.
        self.counts[_PENDING] += len(batch)
        for node, needs in batch.items():
            if isinstance(node.item, Task):
                self._tasks[id(node.item)] = node
            self._wait_for(node, needs)

    def _checked(
        self, wanted: Iterable[tuple[Hashable, Any, list[Hashable]]]
    ) -> dict[Node, list[Node]]:
        """New nodes, each with those that it depends on. Nothing is changed yet."""
        fresh: dict[Hashable, Node] = {}
        tasks: dict[int, Node] = {}
        for key, item, depends_on in wanted:
            if key in fresh or key in self.nodes:
                raise ValueError(f"key must be a new one, got {key!r}: there is a node with it")
            fresh[key] = node = Node(key, item, depends_on)
            if isinstance(item, Task):
                other = self._tasks.get(id(item)) or tasks.get(id(item))
                if other is not None:
                    raise ValueError(
                        f"item of node {key!r} must be a Task of its own, got that of node {other.key!r}: {item!r}"
                    )
                tasks[id(item)] = node
        return {
            node: [self._needed(key, need, fresh) for need in node.depends_on]
            for key, node in fresh.items()
        }

    def _needed(self, key: Hashable, need: Hashable, fresh: dict[Hashable, Node]) -> Node:
        node = fresh.get(need) or self.nodes.get(need)
        if node is None:
            raise ValueError(
                f"depends_on of node {key!r} names {need!r}, which is no node of this graph: add that one before it, "
                "or both in one add_all"
            )
        return node

    def depend(self, key: Hashable, depends_on: Iterable[Hashable]) -> bool:
        """Lets a node depend on more nodes, all or none; false if it is aborted."""
        node = self.find(key)
        if node.state is _ABORTED:
            return False
        if node.state not in (_PENDING, _READY):
            raise RuntimeError(
                f"node {key!r} is {node.state.value}: only one that was not taken yet can depend on more"
            )
        needs = [self._needed(key, need, {}) for need in depends_on]
        if (way := path(node, needs)) is not None:
            raise cycle_error([key, *way])
        node.depends_on += [need.key for need in needs]
        if all(need.state is _COMPLETED for need in needs):
            return True
        if node.state is _READY:
            self.ready.pop(node)
            self._set_state(node, _PENDING)
        self._wait_for(node, needs)
        return True

    def _wait_for(self, node: Node, needs: Sequence[Node]) -> None:
        """Has a pending node wait for others too; it may be ready all the same, or aborted."""
        dead = next((need for need in needs if need.state in (_FAILED, _ABORTED)), None)
        if dead is not None:
            self.abort([node], dead.error, dead.caused_by)
            return
        for need in needs:
            if need.state is not _COMPLETED:
                need.dependants.append(node)
                node.waits_for += 1
        if not node.waits_for:
            self._make_ready(node)

    def forget(self) -> int:
        """Drops all nodes that are settled, and says how many."""
        before = self.nodes
        self.nodes = {key: node for key, node in before.items() if not node.state.settled}
        for state in (_COMPLETED, _FAILED, _ABORTED):
            self.counts[state] = 0
        self._news.let_go(before)
        return len(before) - len(self.nodes)

    # Taking and settling.

    def take(self, key: Hashable, default: Any) -> Any:
        """Has a ready node run, and gives what is given out for it; if it is not ready, the default, if there is one."""
        node = self.nodes.get(key)
        if node is None or node.state is not _READY:
            if default is not NOTHING:
                return default
            node = self.find(key)
            raise RuntimeError(
                f"node {key!r} is {node.state.value}: only one that is ready can be taken"
            )
        given = node.item
        if callable(given) and not isinstance(given, Task):
            given = Task(given, key=key)
        self.ready.pop(node)
        self._set_state(node, _RUNNING)
        node.given = given
        self._given.setdefault(id(given), OrderedDict())[node] = None
        return given

    def given_as(self, item: object) -> Node | None:
        """The node that runs with this very object, of several the one that was taken first."""
        running = self._given.get(id(item))
        return next(iter(running)) if running else None

    def can_settle(self, node: Node) -> bool:
        """Whether the outcome of its work counts. Raises RuntimeError: it cannot have one, or has one."""
        if node.state in (_READY, _RUNNING):
            return True
        if node.state is _ABORTED:
            return False
        raise RuntimeError(
            f"node {node.key!r} is {node.state.value}: only one that is ready or running can be completed or fail"
        )

    def complete(self, node: Node, value: Any) -> None:
        """Completes a node, and has those go on that waited for it."""
        node.value = value
        for dependant in self._settle(node, _COMPLETED):
            dependant.waits_for -= 1
            if not dependant.waits_for and dependant.state is _PENDING:
                self._make_ready(dependant)

    def fail(self, node: Node, error: BaseException) -> None:
        """Has a node fail, and aborts what depends on it."""
        node.error, node.caused_by = error, node.key
        self.abort(self._settle(node, _FAILED), error, node.key)

    def abort(
        self, nodes: Sequence[Node], error: BaseException | None, caused_by: Hashable
    ) -> list[Hashable]:
        """Aborts nodes and what depends on them, unless they are settled; the keys of those that were not."""
        aborted: list[Hashable] = []
        left = deque(nodes)
        while left:
            node = left.popleft()
            if not node.state.settled:
                node.error, node.caused_by = error, caused_by
                left.extend(self._settle(node, _ABORTED))
                aborted.append(node.key)
        return aborted

    def _settle(self, node: Node, state: DependencyState) -> list[Node]:
        """Gives a node its last state; what depends on it."""
        self.ready.pop(node, None)
        if isinstance(node.item, Task):
            self._tasks.pop(id(node.item))
        if node.state is _RUNNING:
            running = self._given[id(node.given)]
            running.pop(node)
            if not running:
                self._given.pop(id(node.given))
            self._news.let_go(node.given)
            node.given = None
        self._set_state(node, state)
        dependants, node.dependants = node.dependants, []
        if self.is_finished:
            self._news.finished()
        return dependants

    def _make_ready(self, node: Node) -> None:
        self._set_state(node, _READY)
        self.ready[node] = None
        self._news.ready(node.key)

    def _set_state(self, node: Node, state: DependencyState) -> None:
        self.counts[node.state] -= 1
        self.counts[state] += 1
        node.state = state
