"""`tee`: one stream for several consumers, each of which gets every item. `PullObj.tee()` calls it.

No task drives the source. A branch that needs an item not yet pulled pulls it within its own pull, and stores it for
all branches. So nothing runs without demand, and there is no task to manage.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeAlias, TypeVar, cast

from headrace._core import AsyncIterSource, attach
from headrace._internal.depth import check_depth
from headrace._internal.reprs import describe_value, format_count
from headrace._internal.validate import check_size
from headrace.errors import CLOSING, ForkError, WouldBlock, WrongLoopError
from headrace.pull._background import Failure
from headrace.pull.source import SourceObj
from headrace.signal import WaitObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.pull.base import PullObj

Overflow: TypeAlias = Literal["auto", "block", "error"]
"""The effect of a pull that would take a branch more than `maxsize` items ahead of the slowest branch."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


MOST_BRANCHES = 100_000
"""The maximum number of branches of one stream: all are created at once, and each gets every item."""


def tee(
    source: PullObj[T],
    n: int,
    *,
    maxsize: int = 1024,
    overflow: Overflow = "auto",
) -> tuple[PullBranchObj[T], ...]:
    """Return several streams of all items of one; see `PullObj.tee`."""
    if check_size("n", n) > MOST_BRANCHES:
        raise ValueError(f"n must be at most {MOST_BRANCHES}, got {describe_value(n)}")
    check_size("maxsize", maxsize)
    if overflow not in ("auto", "block", "error"):
        raise ValueError(f'overflow must be "auto", "block" or "error", got {overflow!r}')
    depth = check_depth(source, "tee()")
    attach(source)
    hub = _Hub(source, maxsize, overflow)
    return tuple(PullBranchObj(_Reader(hub), depth) for _ in range(n))


class PullBranchObj(SourceObj[T_co], stock=True):
    """One of the streams that `PullObj.tee` returns."""

    def __init__(self, reader: _Reader[T_co], depth: int) -> None:
        self._depth = depth
        # Only the feed refers to the reader, so that dropping the branch finalises it.
        self._state = reader.state()
        super().__init__(AsyncIterSource(reader))

    @property
    def source(self) -> PullObj[T_co]:
        """The stream that the branches share."""
        return self._state[0].source

    def _repr_parts(self) -> Iterator[str]:
        hub, backlog = self._state
        yield format_count(len(backlog.outcomes), hub.maxsize, "behind")
        yield from super()._repr_parts()

    def restart(self) -> None:
        """Refuse to restart.

        Raises:
            RuntimeError: Always: the items that a branch has read are dropped, and the other branches are at other positions.
        """
        raise RuntimeError(
            "a branch of tee() cannot restart; close all of them, restart the source, and tee() it again"
        )


def _no_task() -> None:
    """Return None, as a weak reference to a task that was freed does."""


class _Backlog(Generic[T]):
    """The items that one branch has not read yet."""

    __slots__ = ("is_full", "is_open", "outcomes", "reader")

    def __init__(self) -> None:
        self.outcomes: deque[T | Failure] = deque()
        self.is_open: bool = True
        self.is_full: bool = False
        """Whether the hub lists it among the full branches."""
        self.reader: Callable[[], asyncio.Task[object] | None] = _no_task
        """The task that pulled it last, by a weak reference."""

    def close(self) -> None:
        self.is_open = False
        self.outcomes.clear()


class _Reader(Generic[T_co]):
    """The iterator of one branch. Only the branch refers to it, so that dropping the branch finalises it."""

    def __init__(self, hub: _Hub[T_co]) -> None:
        self._hub = hub
        self._backlog = hub.join()

    def __aiter__(self) -> Self:
        return self

    def state(self) -> tuple[_Hub[T_co], _Backlog[T_co]]:
        """Return the state, so that the branch can read it without referring to the reader."""
        return self._hub, self._backlog

    async def __anext__(self) -> T_co:
        return await self._hub.take(self._backlog)

    async def aclose(self) -> None:
        self._backlog.close()
        self._hub.closed_branches.append(self._backlog)
        await self._hub.on_branch_closed()

    def __del__(self) -> None:
        # A finaliser may run in any thread at any time: it only records the fact, and wakes the
        # hub.
        self._backlog.close()
        self._hub.closed_branches.append(self._backlog)
        with contextlib.suppress(ForkError):
            self._hub.changed.resolve(None)


class _Hub(Generic[T]):
    """The source, and the state that its branches share."""

    def __init__(self, source: PullObj[T], maxsize: int, overflow: Overflow) -> None:
        self.source = source
        self.maxsize = maxsize
        self._overflow = overflow
        # The open branches, as keys; some may have been closed since the last check.
        self._backlogs: dict[_Backlog[T], None] = {}
        self._full: dict[_Backlog[T], None] = {}
        """The open branches that have no space for one more item."""
        self.closed_branches: deque[_Backlog[T]] = deque()
        """The branches closed since the last check; appended to from any thread."""
        self._puller: asyncio.Task[object] | None = None
        """The task of the branch that currently pulls the source."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._awaited: dict[asyncio.Task[object], int] = {}
        """The number of branches that wait for each reader of another branch."""
        self.changed: WaitObject[None] = WaitObject()
        """Wakes the branches that wait for a change."""

    def join(self) -> _Backlog[T]:
        """Return a new branch, which gets every item from here on."""
        backlog: _Backlog[T] = _Backlog()
        self._backlogs[backlog] = None
        return backlog

    async def take(self, mine: _Backlog[T]) -> T:
        """Return the next item of a branch, pulling it from the source if no branch has."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if mine.reader() is not task:
            mine.reader = weakref.ref(task)
        has_yielded = False
        while not mine.outcomes:
            if self._ended or not mine.is_open:
                raise StopAsyncIteration
            self._check(task)
            if self._puller is not None:
                await self.changed.wait()
            elif self._has_space():
                await self._pull(task)
            elif self._overflow == "block":
                await self.changed.wait()
            elif (reader := self._other_reader(task)) is not None:
                await self._wait_for(reader)
            elif self._overflow == "auto" and not has_yielded:
                # A task that was just created starts to read its branch in this event-loop iteration.
                has_yielded = True
                await asyncio.sleep(0)
            else:
                raise self._refusal()
        outcome = mine.outcomes.popleft()
        if mine.is_full:
            mine.is_full = False
            self._full.pop(mine, None)
            self.changed.resolve(None)
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def _other_reader(self, task: asyncio.Task[object]) -> asyncio.Task[object] | None:
        """Return a task that reads a full branch and that another branch waits for."""
        if self._overflow == "auto":
            # The first one is enough: when it pulls or ends, the branch decides again.
            for full in self._full:
                reader = full.reader()
                if reader is not None and reader is not task and not reader.done():
                    return reader
        return None

    async def _wait_for(self, reader: asyncio.Task[object]) -> None:
        """Wait for a change, or until the reader ends without having made space."""
        waiting = self._awaited.get(reader, 0)
        if not waiting:
            reader.add_done_callback(self._reader_ended)
        self._awaited[reader] = waiting + 1
        try:
            await self.changed.wait()
        finally:
            self._awaited[reader] -= 1
            if not self._awaited[reader]:
                del self._awaited[reader]
                reader.remove_done_callback(self._reader_ended)

    def _reader_ended(self, _reader: asyncio.Task[object]) -> None:
        self.changed.resolve(None)

    def _refusal(self) -> WouldBlock:
        ahead = f"this branch is {self.maxsize} items ahead of the slowest, which is the maxsize of tee()"
        if self._overflow == "auto":
            return WouldBlock(
                f"{ahead}, and no other task reads that one: read both at the same time in tasks of their own, "
                'close the other, give tee() a larger maxsize, or overflow="block" to wait until it is read'
            )
        return WouldBlock(f"{ahead}: pull the other one, or close it")

    def _check(self, task: asyncio.Task[object]) -> None:
        """Refuse a different event loop, and a source that would wait for itself."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise WrongLoopError(
                "the branches of a shared stream are under way on another event loop; use them there, or close them there first"
            )
        if self._puller is task:
            raise RuntimeError(
                "this stream is being pulled already: its own callable cannot pull it"
            )

    def _has_space(self) -> bool:
        """Return whether every open branch has space for one more item."""
        # Called for each item of each branch: so the full branches are recorded, not searched.
        self._forget_closed()
        return not self._full

    def _forget_closed(self) -> None:
        while self.closed_branches:
            backlog = self.closed_branches.popleft()
            if backlog in self._backlogs:
                del self._backlogs[backlog]
                self._full.pop(backlog, None)
                backlog.is_full = False

    async def _pull(self, task: asyncio.Task[object]) -> None:
        """Pull the source once, for all branches. After a cancellation, the next branch in need pulls."""
        self._puller = task
        cancels = task.cancelling()
        outcome: T | Failure
        try:
            outcome = await anext(self.source)
        except StopAsyncIteration:
            self._ended = True
            return
        except asyncio.CancelledError as error:
            if task.cancelling() > cancels or error.args == (CLOSING,):
                raise
            outcome = Failure(error)
        except GeneratorExit:
            # The pull was dropped and has taken no item.
            raise
        except (KeyboardInterrupt, SystemExit):
            # The error ends the program, once: the other branches must not raise it again.
            raise
        except BaseException as error:
            outcome = Failure(error)
        finally:
            self._puller = None
            self.changed.resolve(None)
        for backlog in self._backlogs:
            if backlog.is_open:
                backlog.outcomes.append(outcome)
                if len(backlog.outcomes) == self.maxsize:
                    backlog.is_full = True
                    self._full[backlog] = None

    async def on_branch_closed(self) -> None:
        """Remove a closed branch; with the last one, close the source."""
        self.changed.resolve(None)
        self._forget_closed()
        if not self._backlogs:
            await self.source.aclose()
