"""Sources for a pool: by priority, by what has to be done before, and by both."""

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
from headrace.buffer import BufferSink, standing
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
"""No item. Any other object could be one."""


class PrioritySourceObj(Aged, SourceObj[T], stock=True):
    """What is pushed into its `sink`, by priority, and nothing waits for ever.

        source = PrioritySourceObj(ageing=30.0)
        await source.sink.next(Task(fetch, url, priority=2))

    An item of a priority that is higher by 1 goes before all that were pushed up to `ageing` seconds earlier. With an
    `ageing` of 0 it is a plain queue; with a huge one, priority alone counts.

    Law: each item that was pushed, once; of those that wait, the one with the least `time of its push - priority *
    ageing`.
    Order: by that number, and first in, first out among equals.
    Bound: `maxsize` items; a push waits for room.
    Cost: O(log n) for a push, O(1) for a pull; one call of `priority` a push.
    Cancel safety: a cancelled pull leaves the item, and its place. A cancelled push leaves it with the caller.

    `sink.next_nowait(item)` may be called in any thread. `sink.return_()` ends the supply: the source drains, then
    ends. `stream.drain_to(source.sink)` pushes a whole stream. A priority that is no finite number is refused by the
    push, and costs that item.

    Args:
        priority: Called with each item, gives its priority, the higher the sooner; None for the attribute `priority`
            of the item, as a `Task` has it, or else 0.
        ageing: By how many seconds of waiting one step of priority is outweighed, from 0.
        maxsize: How many items may wait, a positive integer; None for any number.
        clock: What tells the time in seconds; None for `time.monotonic`. Under virtual time, `loop.time`.

    Raises:
        TypeError: `priority` or `clock` is not callable, `ageing` no number, or `maxsize` no integer.
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
        self._buffer: Buffer[T] = Buffer(maxsize, "block", "priority", self._ageing.place)
        self._sink: SinkObj[T] = BufferSink(self._buffer)
        super().__init__(BufferSource(self._buffer))

    @property
    def sink(self) -> SinkObj[T]:
        """Where items go in."""
        return self._sink

    @property
    def maxsize(self) -> int | None:
        """How many items may wait; None for any number."""
        return self._buffer.maxsize

    def _repr_parts(self) -> Iterator[str]:
        yield from standing(self._buffer)
        yield from super()._repr_parts()

    def peek(self) -> T:
        """The item that the next pull gives, as things are; it stays.

        Raises:
            WouldBlock: There is none now.
            ClosedError: There is none, and none will come.
        """
        return self._buffer.peek()

    @property
    def size(self) -> int:
        """The number of items that wait."""
        return len(self._buffer)


class DependencySourceObj(SourceObj[Any], stock=True):
    """The items of the nodes of a graph, each when all that it depends on is completed.

    What it gives is running from then on, until `graph.complete(key)`, `graph.fail(key, error)` or `graph.abort(key)`
    says otherwise. A `HierarchicalTaskPoolRunner` that is given this source says so by itself, for every task when it
    has ended. Of a run that is left, what runs is cancelled: these nodes have failed, since they were called, and what
    depends on them is aborted. Call `drain()` first, and the next run goes on.

    It waits while no node is ready, and ends when all are settled, which closes the graph: nothing can be added any more
    that nobody would pull. With `keep_open` in the graph, only when `graph.close()` was called too.

    Law: the item of each node that becomes ready, once, whatever the number of sources over the graph. For a callable
    it is a `Task` of it, with the node's key.
    Order: as nodes become ready; those that one completion made ready, as they came to depend on that node.
    Bound: the keys of the nodes that became ready since it was pulled: close one that is not pulled any more.
    Cost: O(1) an item.
    Cancel safety: a cancelled pull takes nothing: the node stays ready.

    Closing it leaves the graph as it is, for other sources; so does `restart()`, which goes on with what is ready then.

    Args:
        graph: The graph. It may grow meanwhile.

    Raises:
        TypeError: `graph` is no `DependencyGraph`.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        if not isinstance(cast("object", graph), DependencyGraph):
            raise TypeError(f"graph must be a DependencyGraph, got {describe_value(graph)}")
        self._graph = graph
        super().__init__(AsyncIterSource(_Ready(graph, self._order())))

    def _order(self) -> Ageing | None:
        """What gives each node its place; None: as they become ready."""
        return None

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self._graph.counts()[DependencyState.READY]} ready"
        yield from super()._repr_parts()

    @property
    def graph(self) -> DependencyGraph:
        """Where its nodes are."""
        return self._graph

    def completed(self, item: object, value: object, /) -> None:
        """The work of an item that was pulled is done; a runner says so: see `OutcomeListener`.

        An item that was settled otherwise meanwhile is left alone. What a callback of the graph raises goes to the
        loop's exception handler.
        """
        try:
            self._graph.completed(item, value)
        except BaseException as error:
            self._told_of(error)

    def failed(self, item: object, error: BaseException, /) -> None:
        """The work of an item that was pulled has failed; a runner says so: see `OutcomeListener`.

        An item that was settled otherwise meanwhile is left alone. What a callback of the graph raises goes to the
        loop's exception handler.
        """
        try:
            self._graph.failed(item, error)
        except BaseException as raised:
            self._told_of(raised)

    def _told_of(self, error: BaseException) -> None:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a callback of {self._graph!r} failed", "exception": error}
        )


class PriorityDependencySourceObj(Aged, DependencySourceObj, stock=True):
    """As `DependencySourceObj`, but of the nodes that are ready the most urgent comes first, and nothing waits for ever.

    An item of a priority that is higher by 1 goes before all that have been ready up to `ageing` seconds longer.

    Law: as `DependencySourceObj`; of the nodes that are ready, the one with the least `time since when - priority *
    ageing`. A node counts as ready since it became so, or since the first pull, if that was later.
    Order: by that number, and as they became ready among equals.
    Bound: the keys of the nodes that are ready, or were: close a source that is not pulled any more.
    Cost: O(log n) an item, and one call of `priority`.
    Cancel safety: a cancelled pull takes nothing: the node stays ready, in its place.

    A priority that cannot be had, or is no finite number, fails its node, and is raised by the pull that found it; the
    next one goes on.

    Args:
        graph: The graph. It may grow meanwhile.
        priority: Called with each item as it was added, gives its priority, the higher the sooner; None for the
            attribute `priority` of the item, as a `Task` has it, or else 0.
        ageing: By how many seconds of waiting one step of priority is outweighed, from 0.
        clock: What tells the time in seconds; None for `time.monotonic`. Under virtual time, `loop.time`.

    Raises:
        TypeError: `graph` is no `DependencyGraph`, `priority` or `clock` is not callable, or `ageing` no number.
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
    """What a source over a graph is made of: each cycle pulls the graph anew."""

    def __init__(self, graph: DependencyGraph, ageing: Ageing | None) -> None:
        self._graph = graph
        self._ageing = ageing

    def __aiter__(self) -> _Pulling:
        return _Pulling(self._graph, self._ageing)


class _Pulling:
    """Takes what is ready; asked for one at a time, which the link of the source sees to.

    The graph refers to it weakly: a source that was dropped is forgotten with the next node that becomes ready.
    """

    def __init__(self, graph: DependencyGraph, ageing: Ageing | None) -> None:
        self._graph = graph
        self._ageing = ageing
        # What the graph told, in any thread, with the time; and, if there is an order of priority, what stands in it.
        self._heard: deque[tuple[float, Hashable]] = deque()
        self._placed: list[tuple[float, int, Hashable]] = []
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
            # A node that has become ready since the look is not missed: the signal is kept.
            await self._signal.wait()
        return item

    async def aclose(self) -> None:
        """Stops listening. What is ready stays so."""
        for stop in self._stops:
            stop()

    def hear(self, key: Hashable) -> None:
        """A node is ready."""
        self._heard.append((0.0 if self._ageing is None else self._ageing.clock(), key))
        self._signal.resolve()

    def wake(self) -> None:
        """All nodes are settled."""
        self._signal.resolve()

    def _take(self) -> Any:
        """The item of the first node that is ready still, which runs from now on; `_NONE` if there is none."""
        while (key := self._next()) is not _NONE:
            # Another source may have been quicker, or it was aborted.
            if (item := self._graph.take(key, _NONE)) is not _NONE:
                return item
        return _NONE

    def _next(self) -> Any:
        """The key of the next node in the order; `_NONE` if there is none."""
        if self._ageing is None:
            return self._heard.popleft()[1] if self._heard else _NONE
        while self._heard:
            since, key = self._heard.popleft()
            self._place(self._ageing, since, key)
        return heapq.heappop(self._placed)[2] if self._placed else _NONE

    def _place(self, ageing: Ageing, since: float, key: Hashable) -> None:
        try:
            item = self._graph[key].item
        except KeyError:
            # Aborted, and forgotten.
            return
        try:
            place = ageing.place(item, since)
        except BaseException as error:
            if self._graph.take(key, _NONE) is _NONE:
                # It is somebody else's.
                return
            add_note_once(error, f"raised by priority of node {short_repr(key)}")
            self._graph.fail(key, error)
            raise
        heapq.heappush(self._placed, (place, next(self._numbers), key))


def _listen(pulling: _Pulling, graph: DependencyGraph) -> list[Callable[[], None]]:
    """Has the graph tell what pulls it, as long as that is there; what ends that."""
    weak = ref(pulling)
    stops: list[Callable[[], None]] = []

    def stop() -> None:
        for each in stops:
            each()

    def ready(key: Hashable) -> None:
        if (me := weak()) is not None:
            me.hear(key)
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
