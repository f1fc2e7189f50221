"""`DependencyGraph`: work of which some has to wait for other work.

This is its face: the lock, and what is said about everything. What happens to nodes stands in `ledger`, what is told of
it, outside of the lock, in `news`.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import shown, told
from headrace._internal.validate import flag
from headrace.errors import NOTHING, ClosedError
from headrace.graph._events import Listener, News
from headrace.graph._store import Ledger
from headrace.graph.node import DependencyNode, DependencyState

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

__all__ = ["DependencyGraph"]


class DependencyGraph:
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
    is called once for each node.
    Cancel safety: nothing waits here.

    Args:
        keep_open: Whether sources go on waiting when there is nothing to do, until `close()`.

    Raises:
        TypeError: `keep_open` is no bool.
    """

    def __init__(self, *, keep_open: bool = False) -> None:
        self._keep_open = flag("keep_open", keep_open)
        self._is_closed = False
        # Held for every look at the ledger and every change of it; never while anything else is called.
        self._lock = Lock()
        self._news = News()
        self._ledger = Ledger(self._news)

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
        # Foreign code runs here, before anything is looked at.
        wanted = [_wanted(entry) for entry in nodes]
        with self._lock:
            if self._is_closed:
                hint = "" if self._keep_open else "; keep_open=True leaves it open until close()"
                raise ClosedError(f"the graph is closed: no node can be added any more{hint}")
            self._ledger.insert(wanted)
        self._news.tell()

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
        needs = _keys(depends_on)
        with self._lock:
            depends = self._ledger.depend(key, needs)
        self._news.tell()
        return depends

    def close(self) -> None:
        """Says that nothing more will be added. Idempotent.

        The nodes that are there go their way; sources end when all are settled.

        Raises:
            BaseException: what a callback of `on_finished` raised.
        """
        with self._lock:
            if not self._is_closed and self._ledger.is_finished:
                self._news.finished()
            self._is_closed = True
        self._news.tell()

    def close_if_over(self) -> bool:
        """Closes the graph if it has nothing to do, unless it is to be kept open; what a source asks that finds no node.

        Returns:
            Whether the graph is over: closed, with all its nodes settled.
        """
        with self._lock:
            if self._ledger.is_finished and not self._keep_open:
                self._is_closed = True
            return self._is_closed and self._ledger.is_finished

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
        with self._lock:
            return self._ledger.take(key, default)

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
        with self._lock:
            node = self._ledger.find(key)
            if not self._ledger.can_settle(node):
                return False
            self._ledger.complete(node, value)
        self._news.tell()
        return True

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
        with self._lock:
            node = self._ledger.find(key)
            if not self._ledger.can_settle(node):
                return False
            self._ledger.fail(node, error)
        self._news.tell()
        return True

    def completed(self, item: object, value: object) -> bool:
        """As `complete`, for the node whose item was given out: see `OutcomeListener`.

        Of several nodes that are running with the very same object, it is the one that was taken first.

        Returns:
            False if there is none: it was settled otherwise meanwhile.
        """
        with self._lock:
            if (node := self._ledger.given_as(item)) is None:
                return False
            self._ledger.complete(node, value)
        self._news.tell()
        return True

    def failed(self, item: object, error: BaseException) -> bool:
        """As `fail`, for the node whose item was given out: see `OutcomeListener`.

        Of several nodes that are running with the very same object, it is the one that was taken first.

        Returns:
            False if there is none: it was settled otherwise meanwhile.
        """
        _check_error(error)
        with self._lock:
            if (node := self._ledger.given_as(item)) is None:
                return False
            self._ledger.fail(node, error)
        self._news.tell()
        return True

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
        with self._lock:
            aborted = self._ledger.abort([self._ledger.find(key)], error, key)
        self._news.tell()
        return tuple(aborted)

    def forget(self) -> int:
        """Drops every node that is settled, with its item, value and error, and says how many.

        Their keys are free again, and no node can be added that depends on them. For graphs that are kept open.

        Cost: O(all nodes).
        """
        with self._lock:
            forgotten = self._ledger.forget()
        self._news.tell()
        return forgotten

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
        listener = Listener(callback)
        with self._lock:
            self._news.listen("ready", listener, (node.key for node in self._ledger.ready))
        self._news.tell()

        def stop() -> None:
            with self._lock:
                self._news.stop("ready", listener)

        return stop

    def on_finished(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Calls `callback()` whenever the last node that was not settled becomes so, and when a graph with none is closed.

        Args:
            callback: A plain function; it is called as that of `on_ready`.

        Returns:
            What ends that: call it without arguments.

        Raises:
            TypeError: `callback` is not callable.
        """
        listener = Listener(callback)
        with self._lock:
            self._news.listen("finished", listener)

        def stop() -> None:
            with self._lock:
                self._news.stop("finished", listener)

        return stop

    # Looking.

    @property
    def closed(self) -> bool:
        """Whether nothing can be added any more."""
        return self._is_closed

    @property
    def finished(self) -> bool:
        """Whether all nodes are settled."""
        with self._lock:
            return self._ledger.is_finished

    def counts(self) -> dict[DependencyState, int]:
        """How many nodes are in each state, those that were forgotten left out. O(1)."""
        with self._lock:
            return {state: self._ledger.counts[state] for state in DependencyState}

    def nodes(self, state: DependencyState | None = None) -> list[DependencyNode]:
        """All nodes, or those in one state, in the order in which they were added. O(all nodes).

        Raises:
            TypeError: `state` is no `DependencyState`.
        """
        if state is not None and not isinstance(cast("object", state), DependencyState):
            raise TypeError(f"state must be a DependencyState or None, got {shown(state)}")
        with self._lock:
            return [
                node.snapshot()
                for node in self._ledger.nodes.values()
                if state in (None, node.state)
            ]

    def __getitem__(self, key: Hashable) -> DependencyNode:
        """The node, as it is now. Raises KeyError: there is none."""
        with self._lock:
            return self._ledger.nodes[key].snapshot()

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._ledger.nodes

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._ledger.nodes)

    def __bool__(self) -> bool:
        """Always true: an empty graph is still one."""
        return True

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        counts = {state: count for state, count in self.counts().items() if count}
        yield from (f"{count} {state.value}" for state, count in counts.items())
        if not counts:
            yield "no nodes"
        if self._is_closed:
            yield "closed"


def _wanted(entry: tuple[Any, ...]) -> tuple[Hashable, Any, list[Hashable]]:
    """What `add_all` takes for a node, checked as far as it can be without the graph."""
    kind = type(cast("object", entry))
    if not issubclass(kind, tuple) or len(entry) not in (2, 3):
        raise TypeError(
            f"nodes must be tuples (key, item) or (key, item, depends_on), got {shown(entry)}"
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
        raise TypeError(f"depends_on must be an iterable of keys, got {shown(depends_on)}{hint}")
    keys: list[Any] = list(depends_on)
    for key in keys:
        _check_hash("depends_on", key)
    return list(dict.fromkeys(keys))


def _check_hash(parameter: str, key: Any) -> None:
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(
            f"{parameter}: what names a node must be hashable, got {shown(key)}"
        ) from error


def _check_error(error: BaseException) -> None:
    if not isinstance(cast("object", error), BaseException):
        raise TypeError(f"error must be an exception, got {shown(error)}")
