"""`DependencyGraph`: nodes of work that depend on each other.

This is the interface: it checks arguments, turns keys into the numbers of nodes, and words the errors. The state of the
graph is in the core (`rust/py/src/graph/mod.rs`), which changes it in atomic steps without a lock. So no code here
runs under a lock, and each method may be called from anywhere: from `__hash__`, `__eq__` and `__repr__` of keys,
finalisers, signal handlers, callbacks and threads.

The state may change between two calls of the core. Each method therefore makes one change, and the core checks
again whatever the method looked up before it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from headrace._core import GraphCore
from headrace._internal.copying import Uncopied
from headrace._internal.error_notes import add_note_once, raise_all
from headrace._internal.reprs import describe_value, format_repr
from headrace._internal.sentinels import NOTHING
from headrace._internal.validate import check_flag
from headrace.errors import ClosedError
from headrace.graph._topology import check, cycle_error
from headrace.graph.node import DependencyNode, DependencyState
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    NodeFacts = tuple[Hashable, Any, tuple[Hashable, ...], int, Any, BaseException | None, Hashable]

_STATES: Final = tuple(DependencyState)
"""By the numbers that the core has for them."""


class DependencyGraph(Uncopied):
    """Nodes, each with a key, an item, and the keys of the nodes that have to be completed before it is ready.

        graph = DependencyGraph()
        graph.add("fetch", fetch)
        graph.add("parse", parse, depends_on=["fetch"])
        runner = HierarchicalTaskPoolRunner(DependencySourceObj(graph), capacity)

    A `DependencySourceObj` gives the items of nodes that are ready, and a runner over it completes and fails them by
    itself. Whoever pulls them otherwise says `complete(key)` or `fail(key, error)`. It may grow at any time, also by
    what its own nodes do while they run.

    A node that fails aborts whatever depends on it, directly or not; those are never run, and say what failed
    (`graph[key].caused_by` and `.error`). So does a node that is aborted by `abort`. What depends on a node that has
    failed or was aborted before is aborted when it is added.

    The graph is over when all its nodes are completed, failed or aborted, and nothing more will be added: a source that
    is pulled then closes the graph, and ends. With `keep_open` a graph without anything to do is not over: its sources
    wait until somebody adds a node, or calls `close()`.

    Any thread may use it, and any number of sources and runners may share one: each node is given out once.

    Law: a node becomes ready exactly when all that it depends on is completed, and is given out at most once.
    Order: nodes that one completion makes ready become so in the order in which they came to depend on that node, and
    nodes that are ready when they are added in the order in which they are given.
    Bound: all nodes, with their items, their values and errors; `forget()` drops those that are settled.
    Cost: O(nodes + dependencies) over the whole life, without recursion, and nothing for looking on: a node that is
    added is in no cycle yet, so `add` checks nothing but itself and `add_all` nothing but its batch. `depend` looks
    at whatever depends on the node that gets the dependency. Besides, each callback of `on_ready`, and each source, which has one,
    is called once for each node. Each of these steps looks nodes up in O(log nodes).
    Cancel safety: nothing waits here, and no lock is held: finalisers, signal handlers and methods of keys may call anything here.

    Args:
        keep_open: Whether sources go on waiting when there is nothing to do, until `close()`.

    Raises:
        TypeError: `keep_open` is no bool.
    """

    _instead = "add the same nodes to another one"

    def __init__(self, *, keep_open: bool = False) -> None:
        self._keep_open = check_flag("keep_open", keep_open)
        self._core = GraphCore()

    # Growing.

    def add(self, key: Hashable, item: Any = NOTHING, depends_on: Iterable[Hashable] = ()) -> None:
        """Adds a node.

        Args:
            key: Names it in the graph: anything that can be hashed.
            item: What is given out when it is ready: a `Task`, a callable (which is given out as a `Task` with this
                key), or any value; the key itself if there is none.
            depends_on: The keys of nodes of this graph.

        Raises:
            CycleError: It depends on itself.
            ClosedError: The graph is closed.
            TypeError: `key` cannot be hashed, or `depends_on` is no iterable of keys; a text is none.
            ValueError: There is a node with this key, or none for something that it depends on; or `item` is a `Task`
                that another node has, which is not settled.
            BaseException: what a callback of `on_ready` raised; the node is there.

        Cost: O(its dependencies).
        """
        self.add_all([(key, item, depends_on)])

    def add_all(
        self,
        nodes: Iterable[tuple[Hashable, Any] | tuple[Hashable, Any, Iterable[Hashable]]],
    ) -> None:
        """Adds several nodes, all of them or, if anything is wrong with one, none.

        Args:
            nodes: For each node what `add` takes: `(key, item)` or `(key, item, depends_on)`. They may depend on each
                other and stand in any order.

        Raises:
            CycleError: Some of them depend on each other in a circle, which the message shows.
            ClosedError, TypeError, ValueError, Exception: as `add`.

        Cost: O(the nodes + their dependencies).
        """
        self._check_open()
        batch = [_wanted(entry) for entry in nodes]
        indices = self._indices(batch)
        entries = [
            (
                key,
                item,
                isinstance(item, Task),
                keys,
                [self._need(key, need, indices) for need in keys],
            )
            for key, item, keys in batch
        ]
        _check_tasks(entries)
        check([[~need for need in needs if need < 0] for *_, needs in entries], list(indices))
        refusal = self._core.insert(entries)
        if refusal is None:
            return
        reason, index, detail = refusal
        if reason == "closed":
            self._check_open()
        key, item, keys = batch[index]
        if reason == "key":
            raise _known(key)
        if reason == "task":
            raise _shared_task(key, detail, item)
        raise _unknown_need(key, keys[cast("int", detail)])

    def _check_open(self) -> None:
        if self._core.closed:
            hint = "" if self._keep_open else "; keep_open=True leaves it open until close()"
            raise ClosedError(f"the graph is closed: no node can be added any more{hint}")

    def _indices(
        self, batch: Iterable[tuple[Hashable, Any, list[Hashable]]]
    ) -> dict[Hashable, int]:
        """The index of each entry of a batch by its key, which must be a new one."""
        indices: dict[Hashable, int] = {}
        for index, (key, _, _) in enumerate(batch):
            if indices.setdefault(key, index) != index or self._core.find(key) is not None:
                raise _known(key)
        return indices

    def _need(self, key: Hashable, need: Hashable, batch: Mapping[Hashable, int]) -> int:
        """The number of a dependency, or `~n` for entry `n` of the batch."""
        if (index := batch.get(need)) is not None:
            return ~index
        if (number := self._core.find(need)) is not None:
            return number
        raise _unknown_need(key, need)

    def depend(self, key: Hashable, *depends_on: Hashable) -> bool:
        """Lets a node that was not taken yet depend on more nodes: all of these, or, if anything is wrong, none.

        One that was ready waits again. If one of these has failed or was aborted, the node is aborted.

        Args:
            key: The node.
            *depends_on: The keys of other nodes.

        Returns:
            False if the node was aborted meanwhile: then nothing happens.

        Raises:
            CycleError: One of them depends on the node, directly or not; the message shows how.
            RuntimeError: The node is running, completed or has failed.
            TypeError: A key cannot be hashed.
            ValueError: There is no node for one of the keys.
            BaseException: what a callback of `on_ready` raised; the dependencies are there.

        Cost: O(what depends on the node, directly or not, with its dependencies): for a node on which nothing
        depends, O(1) each.
        """
        keys = _keys(depends_on)
        node = self._find(key)
        if self._state(key, node) is DependencyState.ABORTED:
            return False
        refusal = self._core.depend(node, [self._need(key, need, {}) for need in keys])
        if refusal is None:
            return True
        reason, detail = refusal
        if reason == "cycle":
            raise cycle_error([key, *detail])
        if reason == "need":
            raise _unknown_need(key, keys[cast("int", detail)])
        state = _state(key, detail)
        if state is DependencyState.ABORTED:
            return False
        raise RuntimeError(
            f"node {key!r} is {state.value}: only one that was not taken yet can depend on more"
        )

    def close(self) -> None:
        """Says that nothing more will be added. Idempotent.

        The nodes that are there go their way; sources end when all are settled.

        Raises:
            BaseException: what a callback of `on_finished` raised.
        """
        self._core.close()

    def close_if_over(self) -> bool:
        """Closes the graph if it has nothing to do, unless it is to be kept open; what a source asks that finds no node.

        Returns:
            Whether the graph is over: closed, with all its nodes settled.
        """
        return self._core.close_if_over(self._keep_open)

    # Taking and settling.

    def take(self, key: Hashable, default: Any = NOTHING) -> Any:
        """Takes a node that is ready: from now on it is running. What sources do when they are pulled.

        Args:
            key: The node.
            default: What to return if it is not ready.

        Returns:
            Its item; for a callable that is no `Task`, a new `Task` of it with the node's key, built in the caller's
            context.

        Raises:
            RuntimeError: It is not ready, and there is no `default`.
            ValueError: There is no such node, and no `default`.
        """
        node = self._core.find(key)
        found = None if node is None else self._core.item(node)
        if node is not None and found is not None and _STATES[found[1]] is DependencyState.READY:
            given = found[0]
            if callable(given) and not isinstance(given, Task):
                given = Task(given, key=key)
            if self._core.take(node, given):
                return given
            # Another caller was faster.
            found = self._core.item(node)
        if default is not NOTHING:
            return default
        state = _state(key, None if found is None else found[1])
        raise RuntimeError(f"node {key!r} is {state.value}: only one that is ready can be taken")

    def complete(self, key: Hashable, value: Any = None) -> bool:
        """Says that the work of a node, which is ready or running, was done. Nodes that waited for it alone are ready.

        Args:
            key: The node.
            value: What came of it, for `graph[key].value`.

        Returns:
            False if the node was aborted meanwhile: then nothing happens.

        Raises:
            RuntimeError: It waits for others still, or has been completed or failed before.
            ValueError: There is no such node.
            BaseException: what a callback of `on_ready` raised; the node is completed.

        Cost: O(what depends on it directly).
        """
        return _was_settled(key, self._core.complete(self._find(key), value))

    def fail(self, key: Hashable, error: BaseException) -> bool:
        """Says that the work of a node, which is ready or running, has failed. What depends on it is aborted.

        Args:
            key: The node.
            error: What went wrong, for `graph[key].error`, here and in all that is aborted.

        Returns:
            False if the node was aborted meanwhile: then nothing happens.

        Raises:
            RuntimeError: It waits for others still, or has been completed or failed before.
            TypeError: `error` is no exception.
            ValueError: There is no such node.
            BaseException: what a callback of `on_finished` raised; the node has failed.

        Cost: O(what depends on it, directly or not, with its dependencies), once for all.
        """
        _check_error(error)
        return _was_settled(key, self._core.fail(self._find(key), error))

    def completed(self, item: object, value: object) -> bool:
        """As `complete`, for the node whose item was given out: see `OutcomeListener`.

        Of several nodes that are running with the very same object, it is the one that was taken first.

        Returns:
            False if there is none: it was settled otherwise meanwhile.
        """
        return self._core.completed(item, value)

    def failed(self, item: object, error: BaseException) -> bool:
        """As `fail`, for the node whose item was given out: see `OutcomeListener`.

        Of several nodes that are running with the very same object, it is the one that was taken first.

        Returns:
            False if there is none: it was settled otherwise meanwhile.
        """
        _check_error(error)
        return self._core.failed(item, error)

    def abort(self, key: Hashable, error: BaseException | None = None) -> tuple[Hashable, ...]:
        """Aborts a node that is not settled, and all that depends on it, directly or not.

        Work that is running is not stopped by this; what comes of it does not count any more.

        Args:
            key: The node.
            error: Why, for `graph[key].error` of all of them.

        Returns:
            The keys of those that were aborted, the nearest first; none if the node was settled before.

        Raises:
            TypeError: `error` is no exception.
            ValueError: There is no such node.
            BaseException: what a callback of `on_finished` raised; they are aborted.

        Cost: O(what is aborted, with its dependencies), once for all.
        """
        if error is not None:
            _check_error(error)
        aborted = self._core.abort(self._find(key), error)
        if aborted is None:
            raise _unknown(key)
        return tuple(aborted)

    def forget(self) -> int:
        """Drops every node that is settled, with its item, value and error, and says how many.

        Their keys are free again, and no node can be added that depends on them. For graphs that are kept open.

        Cost: O(all nodes).
        """
        return self._core.forget()

    # Listening.

    def on_ready(self, callback: Callable[[Hashable], object]) -> Callable[[], None]:
        """Calls `callback(key)` for each node that is ready, and then whenever a node becomes ready.

        It is called in the order in which nodes become ready, by whoever made one ready, while nothing is locked: it
        may use the graph in any way. A node may have been taken meanwhile by somebody else. If another callback is just
        running, in this thread or another, it is called after that one.

        Args:
            callback: A plain function. What it raises is raised by the call that made the node ready.

        Returns:
            What ends that: call it without arguments.

        Raises:
            TypeError: `callback` is not callable.
            BaseException: what `callback` raised for a node that is ready already; it stays.
        """
        _check_callback(callback)
        return partial(self._core.stop, self._core.on_ready(callback))

    def on_finished(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Calls `callback()` whenever the last node that was not settled becomes so, and when a graph with none is closed.

        Args:
            callback: A plain function; it is called as that of `on_ready`.

        Returns:
            What ends that: call it without arguments.

        Raises:
            TypeError: `callback` is not callable.
        """
        _check_callback(callback)
        return partial(self._core.stop, self._core.on_finished(callback))

    # Looking.

    @property
    def closed(self) -> bool:
        """Whether nothing can be added any more."""
        return self._core.closed

    @property
    def finished(self) -> bool:
        """Whether all nodes are settled."""
        return self._core.finished

    def counts(self) -> dict[DependencyState, int]:
        """How many nodes are in each state, those that were forgotten left out. O(1)."""
        return dict(zip(_STATES, self._core.counts(), strict=True))

    def nodes(self, state: DependencyState | None = None) -> list[DependencyNode]:
        """All nodes, or those in one state, in the order in which they were added. O(all nodes).

        Raises:
            TypeError: `state` is no `DependencyState`.
        """
        if state is not None and not isinstance(cast("object", state), DependencyState):
            raise TypeError(f"state must be a DependencyState or None, got {describe_value(state)}")
        wanted = None if state is None else _STATES.index(state)
        return [_snapshot(facts) for facts in self._core.nodes(wanted)]

    def __getitem__(self, key: Hashable) -> DependencyNode:
        """The node, as it is now. Raises KeyError: there is none."""
        node = self._core.find(key)
        facts = None if node is None else self._core.node(node)
        if facts is None:
            raise KeyError(key)
        return _snapshot(facts)

    def __contains__(self, key: object) -> bool:
        return self._core.find(key) is not None

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._core)

    def __bool__(self) -> bool:
        """Always true: an empty graph is still one."""
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
        """The number of the node with this key. Raises ValueError if there is none."""
        node = self._core.find(key)
        if node is None:
            raise _unknown(key)
        return node

    def _state(self, key: Hashable, node: int) -> DependencyState:
        """The state of a node. Raises ValueError if it was forgotten."""
        found = self._core.item(node)
        return _state(key, None if found is None else found[1])


def raise_callback_errors(errors: list[BaseException]) -> None:
    """Raises the errors of callbacks, when all events are delivered; the core calls it.

    Several are raised as a group, but an error that ends the program by itself.
    """
    for error in errors:
        add_note_once(error, "raised by a callback of DependencyGraph")
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
    raise_all(errors, "several callbacks of a DependencyGraph failed")


def _snapshot(facts: NodeFacts) -> DependencyNode:
    key, item, depends_on, state, value, error, caused_by = facts
    # A key that was given again to `depend` is listed again.
    needs = tuple(dict.fromkeys(depends_on))
    return DependencyNode(key, item, needs, _STATES[state], value, error, caused_by)


def _state(key: Hashable, number: int | None) -> DependencyState:
    """A state by its number. Raises ValueError if there is none, because the node was forgotten."""
    if number is None:
        raise _unknown(key)
    return _STATES[number]


def _was_settled(key: Hashable, number: int | None) -> bool:
    """Whether a node was settled by a call before which it was in this state; false if it was aborted by then."""
    state = _state(key, number)
    if state in (DependencyState.READY, DependencyState.RUNNING):
        return True
    if state is DependencyState.ABORTED:
        return False
    raise RuntimeError(
        f"node {key!r} is {state.value}: only one that is ready or running can be completed or fail"
    )


def _unknown(key: Hashable) -> ValueError:
    return ValueError(f"key must be that of a node of this graph, got {describe_value(key)}")


def _unknown_need(key: Hashable, need: Hashable) -> ValueError:
    return ValueError(
        f"depends_on of node {key!r} names {need!r}, which is no node of this graph: add that one before it, "
        "or both in one add_all"
    )


def _known(key: Hashable) -> ValueError:
    return ValueError(f"key must be a new one, got {key!r}: there is a node with it")


def _shared_task(key: Hashable, other: Hashable, task: Task) -> ValueError:
    return ValueError(
        f"item of node {key!r} must be a Task of its own, got that of node {other!r}: {task!r}"
    )


def _check_tasks(entries: Iterable[tuple[Hashable, Any, bool, list[Hashable], list[int]]]) -> None:
    """Refuses a batch in which two nodes have one task."""
    owners: dict[int, Hashable] = {}
    for key, item, is_task, _, _ in entries:
        if is_task:
            if id(item) in owners:
                raise _shared_task(key, owners[id(item)], item)
            owners[id(item)] = key


def _wanted(entry: tuple[Any, ...]) -> tuple[Hashable, Any, list[Hashable]]:
    """What `add_all` takes for a node, checked as far as it can be without the graph."""
    kind = type(cast("object", entry))
    if not issubclass(kind, tuple) or len(entry) not in (2, 3):
        raise TypeError(
            f"nodes must be tuples (key, item) or (key, item, depends_on), got {describe_value(entry)}"
        )
    key, item, *rest = entry
    depends_on = rest[0] if rest else ()
    _check_hash("key", key)
    return key, key if item is NOTHING else item, _keys(depends_on)


def _keys(depends_on: Any) -> list[Hashable]:
    """The keys that a node is to depend on, each once."""
    kind = type(cast("object", depends_on))
    is_text = issubclass(kind, (str, bytes))
    if is_text or not hasattr(kind, "__iter__"):
        hint = f"; write [{depends_on!r}]" if is_text else ""
        raise TypeError(
            f"depends_on must be an iterable of keys, got {describe_value(depends_on)}{hint}"
        )
    keys: list[Any] = list(depends_on)
    for key in keys:
        _check_hash("depends_on", key)
    return list(dict.fromkeys(keys))


def _check_hash(parameter: str, key: Any) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(
            f"{parameter}: what names a node must be hashable, got {describe_value(key)}"
        ) from error


def _check_callback(callback: Callable[..., object]) -> None:
    if not callable(cast("object", callback)):
        raise TypeError(f"callback must be callable, got {describe_value(callback)}")


def _check_error(error: BaseException) -> None:
    if not isinstance(cast("object", error), BaseException):
        raise TypeError(f"error must be an exception, got {describe_value(error)}")
