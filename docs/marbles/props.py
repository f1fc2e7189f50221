"""What a scene gives to its operator: sources, sinks, signals, capacities, callables. Each has a lane in the picture."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from headrace import CapacitySource, DependencyGraph, SinkObj, WaitObject
from headrace.testing import ScriptedSource
from headrace.testing.marble import END, frames
from marbles.lane import Kind, Lane, Mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence

__all__ = [
    "File",
    "Graph",
    "Heard",
    "Hears",
    "Held",
    "Made",
    "Prop",
    "Signal",
    "Sink",
    "Source",
    "item_of",
]


class Prop:
    """Something that an operator is given.

    Attributes:
        below: Whether its lane stands below the operator, where things come out.
        shown: Whether it has a lane.
    """

    below: ClassVar[bool] = False
    shown: ClassVar[bool] = True

    def enter(self, lane: Lane) -> Any:
        """Makes the object that the operator gets. It notes in `lane` what becomes of it."""
        raise NotImplementedError

    def leave(self, lane: Lane) -> None:
        """The run is over."""


def item_of(marble: str) -> Any:
    """The item that a marble stands for: digits are a number."""
    return int(marble) if marble.isdigit() else marble


@dataclass(frozen=True)
class Source(Prop):
    """Plays a line of marbles. Its lane shows what it gave and when, and what nobody asked for."""

    line: str

    def enter(self, lane: Lane) -> AsyncIterator[Any]:
        """An iterator over the line."""
        return _Tapped(aiter(ScriptedSource(self.line)), lane)

    def leave(self, lane: Lane) -> None:
        """Notes what is left in the script."""
        given = sum(mark.kind in (Kind.ITEM, Kind.ERROR) for mark in lane.marks)
        script = [(frame, marble) for frame, marble in frames(self.line) if marble != END]
        last = lane.marks[-1].frame if lane.marks else 0
        for frame, marble in script[given:]:
            text = marble if isinstance(marble, str) else marble.value
            lane.marks.append(Mark(max(frame, last), Kind.LEFT, text))


class _Tapped:
    def __init__(self, iterator: Any, lane: Lane) -> None:
        self._iterator = iterator
        self._lane = lane

    def __aiter__(self) -> _Tapped:
        return self

    async def __anext__(self) -> Any:
        try:
            item = item_of(await anext(self._iterator))
        except StopAsyncIteration:
            self._lane.end()
            raise
        except Exception:
            self._lane.error()
            raise
        self._lane.item(item)
        return item

    async def aclose(self) -> None:
        await self._iterator.aclose()


@dataclass(frozen=True)
class Sink(Prop):
    """Takes `takes` seconds for each item. Its lane shows what it was given and when."""

    takes: float = 0
    below = True

    def enter(self, lane: Lane) -> SinkObj[Any]:
        """The sink."""
        return _Noting(lane, self.takes)


class _Noting(SinkObj[Any]):
    def __init__(self, lane: Lane, takes: float) -> None:
        super().__init__()
        self._lane = lane
        self._takes = takes

    async def next_impl(self, item: Any) -> None:
        self._lane.item(item)
        if self._takes:
            await asyncio.sleep(self._takes)

    async def return_impl(self, value: Any) -> None:
        self._lane.end()

    async def throw_impl(self, error: BaseException) -> None:
        self._lane.error()


@dataclass(frozen=True)
class Signal(Prop):
    """A `WaitObject` that is resolved as a line of marbles says."""

    line: str

    def enter(self, lane: Lane) -> WaitObject[Any]:
        """The signal."""
        signal: WaitObject[Any] = WaitObject()

        def resolve(marble: object) -> None:
            lane.item(marble)
            signal.resolve(marble)

        loop = asyncio.get_running_loop()
        for frame, marble in frames(self.line):
            loop.call_at(lane.began + frame, resolve, marble)
        return signal


@dataclass(frozen=True)
class Graph(Prop):
    """A `DependencyGraph`, whose nodes are completed as a line of marbles says.

    Args:
        nodes: What each node, which is its own item, depends on.
        line: When which one is completed.
    """

    nodes: Mapping[str, Sequence[str]]
    line: str

    def enter(self, lane: Lane) -> DependencyGraph:
        """The graph."""
        lane.name = "completed"
        graph = DependencyGraph()
        graph.add_all((key, key, needs) for key, needs in self.nodes.items())

        def complete(key: Hashable) -> None:
            lane.item(key)
            graph.complete(key)

        loop = asyncio.get_running_loop()
        for frame, key in frames(self.line):
            loop.call_at(lane.began + frame, complete, key)
        return graph


@dataclass(frozen=True)
class File(Prop):
    """The path of a file with `text` in it."""

    text: str = ""
    shown = False

    def enter(self, lane: Lane) -> Path:
        """Makes the file, in a folder of its own."""
        self._folder.append(TemporaryDirectory())
        path = Path(self._folder[-1].name, lane.name)
        path.write_text(self.text, encoding="utf-8")
        return path

    def leave(self, lane: Lane) -> None:
        """Removes it."""
        self._folder.pop().cleanup()

    _folder: list[TemporaryDirectory[str]] = field(default_factory=list, init=False, repr=False)


@dataclass(frozen=True)
class Made(Prop):
    """What `make` makes, anew for each run."""

    make: Callable[[], Any]
    shown = False

    def enter(self, lane: Lane) -> Any:
        """Makes it."""
        return self.make()


@dataclass(frozen=True)
class Heard(Prop):
    """A `WaitObject` to which somebody listens. Its lane shows what they heard."""

    below = True

    def enter(self, lane: Lane) -> WaitObject[Any]:
        """The signal."""
        signal: WaitObject[Any] = WaitObject()

        async def listen() -> None:
            async for value in signal:
                lane.item(value)

        lane.task = asyncio.create_task(listen())
        return signal


@dataclass(frozen=True)
class Hears(Prop):
    """A callable that gives what `answers` gives. Its lane shows what it was called with and when."""

    answers: Callable[[Any], Any] = lambda _item: None
    below = True

    def enter(self, lane: Lane) -> Callable[[Any], Any]:
        """The callable."""

        def hear(item: Any) -> Any:
            lane.error() if isinstance(item, Exception) else lane.item(item)
            return self.answers(item)

        return hear


@dataclass(frozen=True)
class Held(Prop):
    """A capacity of one slot, which somebody else holds until frame `until`."""

    until: int

    def enter(self, lane: Lane) -> CapacitySource:
        """The capacity."""
        loop = asyncio.get_running_loop()
        capacity = CapacitySource(1, clock=loop.time)
        if lease := capacity.acquire_nowait(owner=None):
            loop.call_at(lane.began + self.until, lease.release)
        lane.held = (0, self.until)
        return capacity
