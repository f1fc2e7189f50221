"""`DependencyGraph`: nodes of work that depend on each other. The sources in `graph.sources` pull from it.

This module is the interface: it checks arguments, maps keys to node numbers and creates the errors. The state of the
graph is in the core (`rust/py/src/graph/mod.rs`), which changes it in atomic steps without a lock. So no code here
runs under a lock, and every method can be called from anywhere: from `__hash__`, `__eq__` and `__repr__` of keys,
finalisers, signal handlers, callbacks and threads.

The state may change between two calls of the core. Each method therefore makes one change, and the core checks again
everything that the method looked up before it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from headrace._core import GraphCore
from headrace._internal.copying import Uncopied
from headrace._internal.reprs import describe_value, format_repr
from headrace._internal.sentinels import NOTHING
from headrace._internal.validate import check_flag
from headrace.errors import ClosedError
from headrace.graph._batch import (
    check_acyclic,
    check_callback,
    check_error,
    parse_entry,
    parse_keys,
)
from headrace.graph._errors import (
    cycle_error,
    key_taken,
    shared_task,
    unknown_dependency,
    unknown_key,
)
from headrace.graph.node import DependencyNode, DependencyState
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    NodeFacts = tuple[Hashable, Any, list[Hashable], int, Any, BaseException | None, Hashable]

_STATES: Final = tuple(DependencyState)
"""The states, indexed by their numbers in the core."""


class DependencyGraph(Uncopied):
    """A graph of work: each node has a key, an item and the keys of the nodes that it depends on.

        graph = DependencyGraph()
        graph.add("fetch", fetch)
        graph.add("parse", parse, depends_on=["fetch"])
        runner = HierarchicalTaskPoolRunner(DependencySourceObj(graph), capacity)

    A `DependencySourceObj` yields the items of ready nodes, and a runner over it completes and fails the nodes itself.
    Code that pulls the items in another way calls `complete(key)` or `fail(key, error)`. The graph can grow at any time,
    also from the work of its own nodes.

    A node that fails, or is aborted by `abort`, aborts all nodes that depend on it, directly or not. These never run;
    `graph[key].caused_by` and `.error` name the failure. A node that is added with a failed or aborted dependency is
    aborted at once.

    The graph is finished when all its nodes are completed, failed or aborted and no more nodes will be added. A source
    that is pulled in that state closes the graph and ends. With `keep_open` the sources of an idle graph wait until a
    node is added or `close()` is called.

    The graph is thread-safe. Any number of sources and runners can share it: each node is taken once.

    Law: a node becomes ready exactly when all its dependencies are completed, and is taken at most once.
    Order: nodes made ready by the same completion become ready in the order in which their dependencies on it were added.
    Nodes without open dependencies become ready in the order in which they are added.
    Bound: all nodes, with their items, values and errors; `forget()` drops the settled ones.
    Cost: O(nodes + dependencies) over the whole life, without recursion; looking at the graph adds nothing. A new node is
    not in a cycle yet, so `add` checks only the node and `add_all` only its batch. `depend` visits all nodes that depend
    on the changed node. In addition, each `on_ready` callback is called once per node; every source has one such
    callback. Each of these steps looks nodes up in O(log nodes).
    Cancel safety: no method waits or holds a lock. Finalisers, signal handlers and methods of keys may call any of them.

    Args:
        keep_open: Whether the sources of an idle graph keep waiting until `close()`.

    Raises:
        TypeError: `keep_open` is not a bool.
    """

    _instead = "add the same nodes to another one"

    def __init__(self, *, keep_open: bool = False) -> None:
        self._keep_open = check_flag("keep_open", keep_open)
        self._core = GraphCore()

    # Adding nodes and dependencies.

    def add(self, key: Hashable, item: Any = NOTHING, depends_on: Iterable[Hashable] = ()) -> None:
        """Add a node.

        Args:
            key: The name of the node in the graph: any hashable object.
            item: The item that is taken when the node is ready: a `Task`, a callable (which is taken as a `Task` with
                this key), or any value; by default the key itself.
            depends_on: The keys of nodes of this graph.

        Raises:
            CycleError: The node depends on itself.
            ClosedError: The graph is closed.
            TypeError: `key` is not hashable, or `depends_on` is not an iterable of keys; strings are rejected.
            ValueError: The key exists already, a dependency does not exist, or `item` is a `Task` that belongs to another
                node, which is not settled.
            BaseException: An error raised by an `on_ready` callback; the node has been added.

        Cost: O(its dependencies).
        """
        self.add_all([(key, item, depends_on)])

    def add_all(
        self,
        nodes: Iterable[tuple[Hashable, Any] | tuple[Hashable, Any, Iterable[Hashable]]],
    ) -> None:
        """Add several nodes atomically: if one of them is invalid, none is added.

        Args:
            nodes: The arguments of `add` for each node: `(key, item)` or `(key, item, depends_on)`. The nodes may depend
                on each other, in any order.

        Raises:
            CycleError: Some nodes depend on each other in a cycle, which the message shows.
            ClosedError, TypeError, ValueError, Exception: As in `add`.

        Cost: O(the nodes + their dependencies).
        """
        self._check_open()
        batch = [parse_entry(entry) for entry in nodes]
        indices: dict[Hashable, int] = {}
        for index, (key, _, _) in enumerate(batch):
            if indices.setdefault(key, index) != index or self._core.find(key) is not None:
                raise key_taken(key)
        entries = [
            (
                key,
                item,
                isinstance(item, Task),
                keys,
                [self._number(key, other, indices) for other in keys],
            )
            for key, item, keys in batch
        ]
        check_acyclic(
            [[~number for number in numbers if number < 0] for *_, numbers in entries],
            list(indices),
        )
        refusal = self._core.insert(entries)
        if refusal is None:
            return
        reason, index, detail = refusal
        if reason == "closed":
            self._check_open()
        key, item, keys = batch[index]
        if reason == "key":
            raise key_taken(key)
        if reason == "task":
            raise shared_task(key, detail, item)
        raise unknown_dependency(key, keys[cast("int", detail)])

    def _check_open(self) -> None:
        if self._core.closed:
            hint = "" if self._keep_open else "; keep_open=True leaves it open until close()"
            raise ClosedError(f"the graph is closed: no node can be added any more{hint}")

    def _number(self, key: Hashable, other: Hashable, batch: Mapping[Hashable, int]) -> int:
        """Return the number of a dependency, or `~n` for entry `n` of the batch."""
        if (index := batch.get(other)) is not None:
            return ~index
        if (number := self._core.find(other)) is not None:
            return number
        raise unknown_dependency(key, other)

    def depend(self, key: Hashable, *depends_on: Hashable) -> bool:
        """Add dependencies to a node that was not taken yet, all of them or, on an error, none.

        A ready node becomes pending again. If a new dependency has failed or was aborted, the node is aborted.

        Args:
            key: The node.
            *depends_on: The keys of other nodes.

        Returns:
            False if the node was aborted in the meantime; the call then has no effect.

        Raises:
            CycleError: A new dependency depends on the node, directly or not; the message shows the cycle.
            RuntimeError: The node is running, completed or has failed.
            TypeError: A key is not hashable.
            ValueError: A key does not exist.
            BaseException: An error raised by an `on_ready` callback; the dependencies have been added.

        Cost: O(all direct and indirect dependants of the node, with their dependencies); O(1) per dependency for a node
        without dependants.
        """
        keys = parse_keys(depends_on)
        node = self._find(key)
        if self._state(key, node) is DependencyState.ABORTED:
            return False
        refusal = self._core.depend(node, [self._number(key, other, {}) for other in keys])
        if refusal is None:
            return True
        reason, _, detail = refusal
        if reason == "cycle":
            raise cycle_error([key, *detail])
        if reason == "dependency":
            raise unknown_dependency(key, keys[cast("int", detail)])
        state = _state(key, detail)
        if state is DependencyState.ABORTED:
            return False
        raise RuntimeError(
            f"node {key!r} is {state.value}: only one that was not taken yet can depend on more"
        )

    def close(self) -> None:
        """Close the graph for new nodes. Idempotent.

        Existing nodes are still processed; sources end when all nodes are settled.

        Raises:
            BaseException: An error raised by an `on_finished` callback.
        """
        self._core.close()

    def close_if_over(self) -> bool:
        """Close an idle graph, unless it was created with `keep_open`. Sources call this when they find no node.

        Returns:
            Whether the graph is closed and all its nodes are settled.
        """
        return self._core.close_if_over(self._keep_open)

    # Taking and settling.

    def take(self, key: Hashable, default: Any = NOTHING) -> Any:
        """Take a ready node and mark it as running. Sources call this when they are pulled.

        Args:
            key: The node.
            default: The value to return if the node is not ready.

        Returns:
            The item of the node. A callable that is not a `Task` is wrapped in a new `Task` with the key of the node, in
            the context of the caller.

        Raises:
            RuntimeError: The node is not ready, and `default` is not given.
            ValueError: The node does not exist, and `default` is not given.
        """
        node = self._core.find(key)
        found = None if node is None else self._core.item(node)
        if node is not None and found is not None and _STATES[found[1]] is DependencyState.READY:
            issued = found[0]
            if callable(issued) and not isinstance(issued, Task):
                issued = Task(issued, key=key)
            given = cast("Any", issued)
            if self._core.take(node, given):
                return given
            # Another caller was faster.
            found = self._core.item(node)
        if default is not NOTHING:
            return default
        state = _state(key, None if found is None else found[1])
        raise RuntimeError(f"node {key!r} is {state.value}: only one that is ready can be taken")

    def complete(self, key: Hashable, value: Any = None) -> bool:
        """Complete a ready or running node. Nodes for which it was the last open dependency become ready.

        Args:
            key: The node.
            value: The result, stored in `graph[key].value`.

        Returns:
            False if the node was aborted in the meantime; the call then has no effect.

        Raises:
            RuntimeError: The node is pending, or was completed or failed before.
            ValueError: The node does not exist.
            BaseException: An error raised by an `on_ready` callback; the node is completed.

        Cost: O(direct dependants).
        """
        return _was_settled(key, self._core.complete(self._find(key), value))

    def fail(self, key: Hashable, error: BaseException) -> bool:
        """Mark a ready or running node as failed, and abort all nodes that depend on it.

        Args:
            key: The node.
            error: The error, stored in `graph[key].error` of this node and of all aborted nodes.

        Returns:
            False if the node was aborted in the meantime; the call then has no effect.

        Raises:
            RuntimeError: The node is pending, or was completed or failed before.
            TypeError: `error` is not an exception.
            ValueError: The node does not exist.
            BaseException: An error raised by an `on_finished` callback; the node has failed.

        Cost: O(direct and indirect dependants, with their dependencies), once for all calls.
        """
        check_error(error)
        return _was_settled(key, self._core.fail(self._find(key), error))

    def completed(self, item: object, value: object) -> bool:
        """Complete the running node that has this item; see `OutcomeListener`.

        If several running nodes have the same object as their item, the node that was taken first is used.

        Returns:
            False if there is no such node because it was settled in the meantime.
        """
        return self._core.completed(item, value)

    def failed(self, item: object, error: BaseException) -> bool:
        """Mark the running node that has this item as failed; see `OutcomeListener`.

        If several running nodes have the same object as their item, the node that was taken first is used.

        Returns:
            False if there is no such node because it was settled in the meantime.
        """
        check_error(error)
        return self._core.failed(item, error)

    def abort(self, key: Hashable, error: BaseException | None = None) -> tuple[Hashable, ...]:
        """Abort an unsettled node and all nodes that depend on it, directly or not.

        Running work is not stopped; its result is ignored.

        Args:
            key: The node.
            error: The reason, stored in `graph[key].error` of all aborted nodes.

        Returns:
            The keys of the aborted nodes, nearest first; empty if the node was settled before.

        Raises:
            TypeError: `error` is not an exception.
            ValueError: The node does not exist.
            BaseException: An error raised by an `on_finished` callback; the nodes are aborted.

        Cost: O(aborted nodes, with their dependencies), once for all calls.
        """
        if error is not None:
            check_error(error)
        aborted = self._core.abort(self._find(key), error)
        if aborted is None:
            raise unknown_key(key)
        return tuple(aborted)

    def forget(self) -> int:
        """Drop all settled nodes with their items, values and errors, and return how many.

        Their keys can be used again, and new nodes cannot depend on them. Use it for graphs that are kept open.

        Cost: O(all nodes).
        """
        return self._core.forget()

    # Callbacks.

    def on_ready(self, callback: Callable[[Hashable], object]) -> Callable[[], None]:
        """Call `callback(key)` for each node that is ready now, and whenever a node becomes ready.

        The calls are in the order in which nodes become ready, in the thread that made the node ready. No lock is held,
        so the callback can use the graph in any way. The node may have been taken in the meantime. If another callback is
        running, in this thread or another, the call is made after it.

        Args:
            callback: A plain function. An error that it raises is raised by the call that made the node ready.

        Returns:
            A function without arguments that removes the callback.

        Raises:
            TypeError: `callback` is not callable.
            BaseException: An error raised by `callback` for a node that is ready now; the callback stays registered.
        """
        check_callback(callback)
        return partial(self._core.stop, self._core.on_ready(callback))

    def on_finished(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback()` whenever the last unsettled node is settled, and when a graph without unsettled nodes is closed.

        Args:
            callback: A plain function; it is called like the callbacks of `on_ready`.

        Returns:
            A function without arguments that removes the callback.

        Raises:
            TypeError: `callback` is not callable.
        """
        check_callback(callback)
        return partial(self._core.stop, self._core.on_finished(callback))

    # State.

    @property
    def closed(self) -> bool:
        """Whether the graph is closed for new nodes."""
        return self._core.closed

    @property
    def finished(self) -> bool:
        """Whether all nodes are settled."""
        return self._core.finished

    def counts(self) -> dict[DependencyState, int]:
        """Return the number of nodes in each state, without forgotten nodes. O(1)."""
        return dict(zip(_STATES, self._core.counts(), strict=True))

    def nodes(self, state: DependencyState | None = None) -> list[DependencyNode]:
        """Return all nodes, or those in one state, in the order in which they were added. O(all nodes).

        Raises:
            TypeError: `state` is not a `DependencyState`.
        """
        if state is not None and not isinstance(cast("object", state), DependencyState):
            raise TypeError(f"state must be a DependencyState or None, got {describe_value(state)}")
        wanted = None if state is None else _STATES.index(state)
        return [_snapshot(facts) for facts in self._core.nodes(wanted)]

    def __getitem__(self, key: Hashable) -> DependencyNode:
        """Return a snapshot of a node. Raises KeyError if it does not exist."""
        node = self._core.find(key)
        facts = None if node is None else self._core.node(node)
        if facts is None:
            raise KeyError(key)
        return _snapshot(facts)

    def __contains__(self, key: object) -> bool:
        return self._core.find(key) is not None

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self._core)

    def __bool__(self) -> bool:
        """Return True, even for an empty graph."""
        return True

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        counts = {state: count for state, count in self.counts().items() if count}
        yield from (f"{count} {state.value}" for state, count in counts.items())
        if not counts:
            yield "no nodes"
        if self._core.closed:
            yield "closed"

    def _find(self, key: Hashable) -> int:
        """Return the number of the node with this key. Raises ValueError if it does not exist."""
        node = self._core.find(key)
        if node is None:
            raise unknown_key(key)
        return node

    def _state(self, key: Hashable, node: int) -> DependencyState:
        """Return the state of a node. Raises ValueError if it was forgotten."""
        found = self._core.item(node)
        return _state(key, None if found is None else found[1])


def _snapshot(facts: NodeFacts) -> DependencyNode:
    key, item, depends_on, state, value, error, caused_by = facts
    # The core lists a dependency twice if `depend` was called with it twice.
    keys = tuple(dict.fromkeys(depends_on))
    return DependencyNode(key, item, keys, _STATES[state], value, error, caused_by)


def _state(key: Hashable, number: int | None) -> DependencyState:
    """Return a state by its number. Raises ValueError for None: the node was forgotten."""
    if number is None:
        raise unknown_key(key)
    return _STATES[number]


def _was_settled(key: Hashable, number: int | None) -> bool:
    """Return whether a call settled a node that was in this state before; False if it was aborted already."""
    state = _state(key, number)
    if state in (DependencyState.READY, DependencyState.RUNNING):
        return True
    if state is DependencyState.ABORTED:
        return False
    raise RuntimeError(
        f"node {key!r} is {state.value}: only one that is ready or running can be completed or fail"
    )
