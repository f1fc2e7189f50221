"""The active runs of the process, and their tasks. `Run` registers itself; `explain()` and the warning of stuck trees read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakValueDictionary

from headrace._core import engine_tasks, tree_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from headrace._core import Engine, TreeRef
    from headrace.pool.config import Config
    from headrace.pool.event_queue import EventQueue
    from headrace.pool.executor.use import RunExecutors


class LiveRun(Protocol):
    """The parts of a `Run` that are read here."""

    config: Config[Any]
    loop: asyncio.AbstractEventLoop
    thread: int
    events: EventQueue
    executors: RunExecutors
    blocked: tuple[str, float] | None
    is_feeding: bool
    draining: bool
    ending: bool

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    @property
    def feeder(self) -> asyncio.Task[None] | None:
        """The asyncio task that drives the run."""
        ...

    @property
    def running(self) -> bool:
        """Whether the run has started and not ended."""
        ...

    def clock(self) -> float:
        """Read the clock of the event loop."""
        ...


_runs: WeakValueDictionary[int, LiveRun] = WeakValueDictionary()


def add(run: LiveRun) -> None:
    """Register a run that starts."""
    _runs[id(run)] = run


def discard(run: LiveRun) -> None:
    """Remove a run that has ended."""
    _runs.pop(id(run), None)


def live_runs() -> list[LiveRun]:
    """Return the active runs, in the order in which they were started. Any thread may call it."""
    # A list of references is made in one step, so runs may start and end meanwhile.
    found = (ref() for ref in _runs.valuerefs())
    return [run for run in found if run is not None and run.running]


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A task of a run that has not ended."""

    id: int
    state: str
    """`"running"`, `"stepping"`, `"submitted"`, `"requesting"`, `"following"`, `"held"` or `"backing off"`; see `engine_tasks`."""
    key: Hashable
    queued: float | None
    started: float | None
    deadline: float | None
    attempt: int
    permit: int | None
    """The number of its permit in the tree of its run."""
    task: asyncio.Task[Any] | None
    """The asyncio task in which it runs."""


def tasks_of(run: LiveRun) -> list[LiveTask]:
    """Return the tasks of a run, in the order in which they were accepted."""
    try:
        engine = run.engine
    except RuntimeError:
        # The run has ended meanwhile.
        return []
    return [LiveTask(*facts) for facts in engine_tasks(engine)]


def place_of(run: LiveRun) -> tuple[TreeRef, int]:
    """Return the tree of the capacity of a run, and the number of the node in it."""
    return tree_of(cast("Any", run.config.capacity))
