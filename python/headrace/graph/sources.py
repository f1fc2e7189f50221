"""Sources for a pool: ordered by priority, by dependencies, or by both. User code passes one to a runner."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import ref

from headrace._core import AsyncIterSource, Buffer, BufferSource
from headrace._internal.error_notes import add_note_once
from headrace._internal.reprs import describe_value, short_repr
from headrace.buffer import BufferSink, state_parts
from headrace.graph._aging import Aged, Ageing
from headrace.graph.graph import DependencyGraph
from headrace.graph.node import DependencyState
from headrace.pull.source import SourceObj
from headrace.signal import WaitObject

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from typing import Self

    from headrace.push.sink import SinkObj

T = TypeVar("T")

_NONE: Final = object()
"""The marker for no item: any other object can be an item."""


class PrioritySourceObj(Aged, SourceObj[T], stock=True):
    """A priority queue without starvation: items pushed into its `sink` are pulled by priority.

        source = PrioritySourceObj(ageing=30.0)
        await source.sink.next(Task(fetch, url, priority=2))

    An item whose priority is higher by 1 is pulled before all items pushed up to `ageing` seconds earlier. With an
    `ageing` of 0 this is a plain queue; with a very large one, only the priority counts.

    Law: each pushed item is pulled once; the next item is the one with the lowest `time of its push - priority * ageing`.
    Order: by that number, and FIFO among equals.
    Bound: `maxsize` items; a push waits for space.
    Cost: O(log n) for a push, O(1) for a pull; one call of `priority` per push.
    Cancel safety: a cancelled pull leaves the item in its position. A cancelled push leaves the item with the caller.

    `sink.next_nowait(item)` can be called in any thread. After `sink.return_()` the source yields the remaining items and
    ends. `stream.drain_to(source.sink)` pushes a whole stream. A push whose priority is not a finite number raises an
    error, and its item is lost.

    Args:
        priority: A function that returns the priority of an item; a higher priority is pulled first. None for the
            attribute `priority` of the item, as a `Task` has it, or 0 without one.
        ageing: The seconds of waiting that offset one priority step, 0 or more.
        maxsize: The maximum number of waiting items, a positive integer; None for no limit.
        clock: A function that returns the time in seconds; None for `time.monotonic`. For virtual time, `loop.time`.

    Raises:
        TypeError: `priority` or `clock` is not callable, `ageing` not a number, or `maxsize` not an integer.
        ValueError: `ageing` is negative or not finite, or `maxsize` is not positive.
    """

    def __init__(
        self,
        *,
        priority: Callable[[T], float] | None = None,
        ageing: float = 60.0,
        maxsize: int | None = 1024,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._ageing = Ageing(priority, ageing, clock)
        self._buffer: Buffer[T] = Buffer(maxsize, "block", "priority", self._ageing.position)
        self._sink: SinkObj[T] = BufferSink(self._buffer)
        super().__init__(BufferSource(self._buffer))

    @property
    def sink(self) -> SinkObj[T]:
        """The sink that accepts items."""
        return self._sink

    @property
    def maxsize(self) -> int | None:
        """The maximum number of waiting items; None for no limit."""
        return self._buffer.maxsize

    def _repr_parts(self) -> Iterator[str]:
        yield from state_parts(self._buffer)
        yield from super()._repr_parts()

    def peek(self) -> T:
        """Return the item that the next pull would return now, without removing it.

        Raises:
            WouldBlock: There is no item now.
            ClosedError: There is no item, and the supply has ended.
        """
        return self._buffer.peek()

    @property
    def size(self) -> int:
        """The number of waiting items."""
        return len(self._buffer)


class DependencySourceObj(SourceObj[Any], stock=True):
    """A source over a `DependencyGraph`: yields the item of each node once its dependencies are completed.

    A node whose item was pulled is running until `graph.complete(key)`, `graph.fail(key, error)` or `graph.abort(key)` is
    called. A `HierarchicalTaskPoolRunner` over this source makes these calls itself, for every task that ends. Leaving a
    run cancels its running tasks: their nodes have failed, and the nodes that depend on them are aborted. Call `drain()`
    first to let a later run continue.

    The source waits while no node is ready. It ends when all nodes are settled, and then closes the graph: nodes added
    later would never be pulled. For a graph with `keep_open` it ends only after `graph.close()`.

    Law: the item of each node that becomes ready is yielded once, regardless of the number of sources over the graph. A
    callable is yielded as a `Task` with the key of the node.
    Order: as nodes become ready; for nodes made ready by the same completion, the order in which their dependencies on it
    were added.
    Bound: the keys of the nodes that became ready since the first pull. Close a source that is not pulled any more.
    Cost: O(1) per item.
    Cancel safety: a cancelled pull takes no node: the node stays ready.

    Closing the source does not change the graph, for the sake of other sources. `restart()` does not either, and continues
    with the nodes that are ready then.

    Args:
        graph: The graph. It can grow while it is pulled.

    Raises:
        TypeError: `graph` is not a `DependencyGraph`.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        if not isinstance(cast("object", graph), DependencyGraph):
            raise TypeError(f"graph must be a DependencyGraph, got {describe_value(graph)}")
        self._graph = graph
        super().__init__(AsyncIterSource(_Ready(graph, self._order())))

    def _order(self) -> Ageing | None:
        """Return the priority order of the nodes; None for the order in which they become ready."""
        return None

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self._graph.counts()[DependencyState.READY]} ready"
        yield from super()._repr_parts()

    @property
    def graph(self) -> DependencyGraph:
        """The graph whose nodes are pulled."""
        return self._graph

    def completed(self, item: object, value: object, /) -> None:
        """Complete the node of a pulled item; runners call this, see `OutcomeListener`.

        If the node was settled in the meantime, the call has no effect. An error raised by a callback of the graph is
        passed to the loop's exception handler.
        """
        self._settle(self._graph.completed, item, value)

    def failed(self, item: object, error: BaseException, /) -> None:
        """Mark the node of a pulled item as failed; runners call this, see `OutcomeListener`.

        If the node was settled in the meantime, the call has no effect. An error raised by a callback of the graph is
        passed to the loop's exception handler.
        """
        self._settle(self._graph.failed, item, error)

    def _settle(self, settle: Callable[[object, Any], bool], item: object, result: Any) -> None:
        try:
            settle(item, result)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a callback of {self._graph!r} failed", "exception": error}
            )


class PriorityDependencySourceObj(Aged, DependencySourceObj, stock=True):
    """A `DependencySourceObj` that yields the most urgent ready node first, without starvation.

    An item whose priority is higher by 1 is pulled before all items that were ready up to `ageing` seconds earlier.

    Law: as `DependencySourceObj`; the next node is the ready one with the lowest `start - priority * ageing`. The start is
    the time at which the node became ready, or the time of the first pull if that was later.
    Order: by that number, and as they became ready among equals.
    Bound: the keys of the nodes that are or were ready. Close a source that is not pulled any more.
    Cost: O(log n) per item, and one call of `priority`.
    Cancel safety: a cancelled pull takes no node: the node stays ready, in its position.

    If `priority` raises, or returns something other than a finite number, the node fails. The pull that found the node
    raises the error, and the next pull continues.

    Args:
        graph: The graph. It can grow while it is pulled.
        priority: A function that returns the priority of an item, called with the item as it was added; a higher
            priority is pulled first. None for the attribute `priority` of the item, as a `Task` has it, or 0 without one.
        ageing: The seconds of waiting that offset one priority step, 0 or more.
        clock: A function that returns the time in seconds; None for `time.monotonic`. For virtual time, `loop.time`.

    Raises:
        TypeError: `graph` is not a `DependencyGraph`, `priority` or `clock` is not callable, or `ageing` not a number.
        ValueError: `ageing` is negative or not finite.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        *,
        priority: Callable[[Any], float] | None = None,
        ageing: float = 60.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._ageing = Ageing(priority, ageing, clock)
        super().__init__(graph)

    def _order(self) -> Ageing:
        return self._ageing


class _Ready:
    """The iterable of a source over a graph: each cycle of the source starts a new iterator."""

    def __init__(self, graph: DependencyGraph, ageing: Ageing | None) -> None:
        self._graph = graph
        self._ageing = ageing

    def __aiter__(self) -> _Pulling:
        return _Pulling(self._graph, self._ageing)


class _Pulling:
    """The iterator that takes ready nodes. The source guarantees one pull at a time.

    The graph holds a weak reference: the callbacks of a dropped source are removed when the next node becomes ready.
    """

    def __init__(self, graph: DependencyGraph, ageing: Ageing | None) -> None:
        self._graph = graph
        self._ageing = ageing
        # Ready nodes reported by the graph, from any thread, with the time; with a priority order, the heap of these nodes.
        self._ready: deque[tuple[float, Hashable]] = deque()
        self._heap: list[tuple[float, int, Hashable]] = []
        self._numbers = count()
        self._signal: WaitObject[None] = WaitObject()
        self._stops = _listen(self, graph)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while (item := self._take()) is _NONE:
            if self._graph.close_if_over():
                await self.aclose()
                raise StopAsyncIteration
            # A node that became ready after `_take` is not missed: the signal stays resolved.
            await self._signal.wait()
        return item

    async def aclose(self) -> None:
        """Remove the callbacks. Ready nodes stay ready."""
        for stop in self._stops:
            stop()

    def add_ready(self, key: Hashable) -> None:
        """Record a node that became ready."""
        self._ready.append((0.0 if self._ageing is None else self._ageing.clock(), key))
        self._signal.resolve()

    def wake(self) -> None:
        """Wake the pull: all nodes are settled."""
        self._signal.resolve()

    def _take(self) -> Any:
        """Take the first node that is still ready and return its item; `_NONE` if there is none."""
        while (key := self._next()) is not _NONE:
            # The node may have been taken by another source, or aborted.
            if (item := self._graph.take(key, _NONE)) is not _NONE:
                return item
        return _NONE

    def _next(self) -> Any:
        """Return the key of the next node in the order; `_NONE` if there is none."""
        if self._ageing is None:
            return self._ready.popleft()[1] if self._ready else _NONE
        while self._ready:
            since, key = self._ready.popleft()
            self._enqueue(self._ageing, since, key)
        return heapq.heappop(self._heap)[2] if self._heap else _NONE

    def _enqueue(self, ageing: Ageing, since: float, key: Hashable) -> None:
        try:
            item = self._graph[key].item
        except KeyError:
            # The node was aborted and forgotten.
            return
        try:
            position = ageing.position(item, since)
        except BaseException as error:
            if self._graph.take(key, _NONE) is _NONE:
                # Another source took the node.
                return
            add_note_once(error, f"raised by priority of node {short_repr(key)}")
            self._graph.fail(key, error)
            raise
        heapq.heappush(self._heap, (position, next(self._numbers), key))


def _listen(pulling: _Pulling, graph: DependencyGraph) -> list[Callable[[], None]]:
    """Register the callbacks of an iterator, and return functions that remove them."""
    weak = ref(pulling)
    stops: list[Callable[[], None]] = []

    def stop() -> None:
        for each in stops:
            each()

    def ready(key: Hashable) -> None:
        if (me := weak()) is not None:
            me.add_ready(key)
        else:
            stop()

    def finished() -> None:
        if (me := weak()) is not None:
            me.wake()
        else:
            stop()

    stops.append(graph.on_ready(ready))
    stops.append(graph.on_finished(finished))
    return stops
