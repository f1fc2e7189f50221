"""The arguments of a scene's operator: sources, sinks, signals, capacities, callables. Each has a track in the picture."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from headrace import CapacitySource, DependencyGraph, SinkObj, WaitObject
from headrace._core import JournalFile
from headrace.testing import ScriptedSource
from headrace.testing.marble import END, frames
from marbles.track import Kind, Mark, Track

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence

__all__ = [
    "Called",
    "File",
    "Fixture",
    "Graph",
    "Held",
    "Made",
    "Resolved",
    "Signal",
    "Sink",
    "Source",
    "item_of",
]


class Fixture:
    """An argument of an operator.

    Attributes:
        below: Whether its track is below the operator, on the output side.
        shown: Whether it has a track.
    """

    below: ClassVar[bool] = False
    shown: ClassVar[bool] = True

    def enter(self, track: Track) -> Any:
        """Create the object for the operator. The object records its events in `track`."""
        raise NotImplementedError

    def leave(self, track: Track) -> None:
        """Clean up after the run."""


def item_of(marble: str) -> Any:
    """Convert a marble to its item: digits become a number."""
    return int(marble) if marble.isdigit() else marble


@dataclass(frozen=True)
class Source(Fixture):
    """A source that plays a marble string. Its track shows the yielded items and those never pulled."""

    line: str

    def enter(self, track: Track) -> AsyncIterator[Any]:
        """Return an iterator over the marbles."""
        return _Tapped(aiter(ScriptedSource(self.line)), track)

    def leave(self, track: Track) -> None:
        """Record the items left in the script."""
        given = sum(mark.kind in (Kind.ITEM, Kind.ERROR) for mark in track.marks)
        script = [(frame, marble) for frame, marble in frames(self.line) if marble != END]
        last = track.marks[-1].frame if track.marks else 0
        for frame, marble in script[given:]:
            text = marble if isinstance(marble, str) else marble.value
            track.marks.append(Mark(max(frame, last), Kind.LEFT, text))


class _Tapped:
    def __init__(self, iterator: Any, track: Track) -> None:
        self._iterator = iterator
        self._track = track

    def __aiter__(self) -> _Tapped:
        return self

    async def __anext__(self) -> Any:
        try:
            item = item_of(await anext(self._iterator))
        except StopAsyncIteration:
            self._track.end()
            raise
        except Exception:
            self._track.error()
            raise
        self._track.item(item)
        return item

    async def aclose(self) -> None:
        await self._iterator.aclose()


@dataclass(frozen=True)
class Sink(Fixture):
    """A sink that takes `takes` seconds for each item. Its track shows the received items."""

    takes: float = 0
    below = True

    def enter(self, track: Track) -> SinkObj[Any]:
        """Return the sink."""
        return _Noting(track, self.takes)


class _Noting(SinkObj[Any]):
    def __init__(self, track: Track, takes: float) -> None:
        super().__init__()
        self._track = track
        self._takes = takes

    async def next_impl(self, item: Any) -> None:
        self._track.item(item)
        if self._takes:
            await asyncio.sleep(self._takes)

    async def return_impl(self, value: Any) -> None:
        self._track.end()

    async def throw_impl(self, error: BaseException) -> None:
        self._track.error()


@dataclass(frozen=True)
class Signal(Fixture):
    """A `WaitObject` that a marble string resolves."""

    line: str

    def enter(self, track: Track) -> WaitObject[Any]:
        """Return the signal."""
        signal: WaitObject[Any] = WaitObject()

        def resolve(marble: object) -> None:
            track.item(marble)
            signal.resolve(marble)

        loop = asyncio.get_running_loop()
        for frame, marble in frames(self.line):
            loop.call_at(track.began + frame, resolve, marble)
        return signal


@dataclass(frozen=True)
class Graph(Fixture):
    """A `DependencyGraph` whose nodes a marble string completes.

    Args:
        nodes: The dependencies of each node. The node is its own item.
        line: The completions over time.
    """

    nodes: Mapping[str, Sequence[str]]
    line: str

    def enter(self, track: Track) -> DependencyGraph:
        """Return the graph."""
        track.name = "completed"
        graph = DependencyGraph()
        graph.add_all((key, key, needs) for key, needs in self.nodes.items())

        def complete(key: Hashable) -> None:
            track.item(key)
            graph.complete(key)

        loop = asyncio.get_running_loop()
        for frame, key in frames(self.line):
            loop.call_at(track.began + frame, complete, key)
        return graph


@dataclass(frozen=True)
class File(Fixture):
    """The path of a file that contains `text`."""

    text: str = ""
    shown = False

    def enter(self, track: Track) -> Path:
        """Create the file, in a folder of its own."""
        self._folder.append(TemporaryDirectory())
        path = Path(self._folder[-1].name, track.name)
        path.write_text(self.text, encoding="utf-8")
        return path

    def leave(self, track: Track) -> None:
        """Remove the file."""
        self._folder.pop().cleanup()

    _folder: list[TemporaryDirectory[str]] = field(default_factory=list, init=False, repr=False)


@dataclass(frozen=True)
class Recorded(File):
    """The path of a journal that has each letter of `text` as a result."""

    def enter(self, track: Track) -> Path:
        """Create the file, in a folder of its own."""
        self._folder.append(TemporaryDirectory())
        path = Path(self._folder[-1].name, track.name)
        journal = JournalFile(str(path), skips_damage=False, syncs=False)
        for number, letter in enumerate(self.text):
            journal.store(number, letter)
        journal.close(False)
        return path


@dataclass(frozen=True)
class Made(Fixture):
    """An object that `make` creates for each run."""

    make: Callable[[], Any]
    shown = False

    def enter(self, track: Track) -> Any:
        """Create the object."""
        return self.make()


@dataclass(frozen=True)
class Resolved(Fixture):
    """A `WaitObject` with a listening task. Its track shows the received values."""

    below = True

    def enter(self, track: Track) -> WaitObject[Any]:
        """Return the signal."""
        signal: WaitObject[Any] = WaitObject()

        async def listen() -> None:
            async for value in signal:
                track.item(value)

        track.task = asyncio.create_task(listen())
        return signal


@dataclass(frozen=True)
class Called(Fixture):
    """A callable that returns the result of `answers`. Its track shows the arguments of its calls."""

    answers: Callable[[Any], Any] = lambda _item: None
    below = True

    def enter(self, track: Track) -> Callable[[Any], Any]:
        """Return the callable."""

        def call(item: Any) -> Any:
            track.error() if isinstance(item, Exception) else track.item(item)
            return self.answers(item)

        return call


@dataclass(frozen=True)
class Held(Fixture):
    """A capacity of one slot, which another lease holds until frame `until`."""

    until: int

    def enter(self, track: Track) -> CapacitySource:
        """Return the capacity."""
        loop = asyncio.get_running_loop()
        capacity = CapacitySource(1, clock=loop.time)
        if lease := capacity.acquire_nowait(owner=None):
            loop.call_at(track.began + self.until, lease.release)
        track.held = (0, self.until)
        return capacity
