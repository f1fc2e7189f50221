"""`tee`: one stream for several consumers, each of which sees every item.

Nobody drives the source but those who want its items: a branch that needs one which nobody has pulled
yet pulls it, in its own pull, and hands it to all. So nothing runs unless it is wanted, and there is no
task to be looked after.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeAlias, TypeVar, cast

from headrace._core import ForeignFeed, attach
from headrace._internal.depth import check_depth
from headrace._internal.reprs import describe_value, format_count
from headrace._internal.validate import check_int
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
"""The most branches of one stream: each is made at once, and sees every item."""


def tee(
    source: PullObj[T],
    n: int,
    *,
    maxsize: int = 1024,
    overflow: Overflow = "auto",
) -> tuple[PullBranchObj[T], ...]:
    """Several streams of all items of one; see `PullObj.tee`."""
    if check_int("n", 1, n) > MOST_BRANCHES:
        raise ValueError(f"n must be at most {MOST_BRANCHES}, got {describe_value(n)}")
    check_int("maxsize", 1, maxsize)
    if overflow not in ("auto", "block", "error"):
        raise ValueError(f'overflow must be "auto", "block" or "error", got {overflow!r}')
    depth = check_depth(source, "tee()")
    attach(source)
    hub = _Hub(source, maxsize, overflow)
    return tuple(PullBranchObj(_Reader(hub), depth) for _ in range(n))


class PullBranchObj(SourceObj[T_co], stock=True):
    """One of the streams that `PullObj.tee` gives."""

    def __init__(self, reader: _Reader[T_co], nesting: int) -> None:
        self._depth = nesting
        # The reader itself is the feed's alone, so that it is noticed when it is dropped.
        self._look = reader.look()
        super().__init__(ForeignFeed(reader))

    @property
    def source(self) -> PullObj[T_co]:
        """The stream that the branches share."""
        return self._look[0].source

    def _repr_parts(self) -> Iterator[str]:
        hub, backlog = self._look
        yield format_count(len(backlog.outcomes), hub.maxsize, "behind")
        yield from super()._repr_parts()

    def restart(self) -> None:
        """Raises.

        Raises:
            RuntimeError: Always: what a branch has seen is gone, and the others are elsewhere.
        """
        raise RuntimeError(
            "a branch of tee() cannot restart; close all of them, restart the source, and tee() it again"
        )


def _no_task() -> None:
    """A reference to no task."""


class _Backlog(Generic[T]):
    """What one branch has not seen yet."""

    __slots__ = ("is_full", "is_open", "outcomes", "reader")

    def __init__(self) -> None:
        self.outcomes: deque[T | Failure] = deque()
        self.is_open: bool = True
        self.is_full: bool = False
        """Whether the hub has it among those without room for one more item."""
        self.reader: Callable[[], asyncio.Task[object] | None] = _no_task
        """The task that pulled it last, by a weak reference."""

    def close(self) -> None:
        self.is_open = False
        self.outcomes.clear()


class _Reader(Generic[T_co]):
    """The items of one branch. Its branch alone refers to it, so that one that was dropped is noticed."""

    def __init__(self, hub: _Hub[T_co]) -> None:
        self._hub = hub
        self._backlog = hub.join()

    def __aiter__(self) -> Self:
        return self

    def look(self) -> tuple[_Hub[T_co], _Backlog[T_co]]:
        """What can be looked at without it."""
        return self._hub, self._backlog

    async def __anext__(self) -> T_co:
        return await self._hub.take(self._backlog)

    async def aclose(self) -> None:
        self._backlog.close()
        self._hub.gone.append(self._backlog)
        await self._hub.left()

    def __del__(self) -> None:
        # In any thread, in the middle of anything: it only says so. The hub is not told to look, but wakes.
        self._backlog.close()
        self._hub.gone.append(self._backlog)
        with contextlib.suppress(ForkError):
            self._hub.moved.resolve(None)


class _Hub(Generic[T]):
    """The source, and what its branches share."""

    def __init__(self, source: PullObj[T], maxsize: int, overflow: Overflow) -> None:
        self.source = source
        self.maxsize = maxsize
        self._overflow = overflow
        # Those that are open, as keys; some may have been closed since the last look.
        self._backlogs: dict[_Backlog[T], None] = {}
        self._full: dict[_Backlog[T], None] = {}
        """Those of them that have no room for one more item."""
        self.gone: deque[_Backlog[T]] = deque()
        """Those that were closed since the last look, told by whoever closed them, in any thread."""
        self._puller: asyncio.Task[object] | None = None
        """The task of the branch that pulls the source now."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._awaited: dict[asyncio.Task[object], int] = {}
        """How many branches wait for each reader of another one."""
        self.moved: WaitObject[None] = WaitObject()
        """Something changed that a branch may wait for."""

    def join(self) -> _Backlog[T]:
        """A new branch, which sees everything from now on."""
        backlog: _Backlog[T] = _Backlog()
        self._backlogs[backlog] = None
        return backlog

    async def take(self, mine: _Backlog[T]) -> T:
        """What is next for a branch: pulled by it, if nobody has."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if mine.reader() is not task:
            mine.reader = weakref.ref(task)
        has_yielded = False
        while not mine.outcomes:
            if self._ended or not mine.is_open:
                raise StopAsyncIteration
            self._check(task)
            if self._puller is not None:
                await self.moved.wait()
            elif self._has_room():
                await self._pull(task)
            elif self._overflow == "block":
                await self.moved.wait()
            elif (reader := self._other_reader(task)) is not None:
                await self._wait_for(reader)
            elif self._overflow == "auto" and not has_yielded:
                # A task that was just created starts to read its branch in this iteration of the loop.
                has_yielded = True
                await asyncio.sleep(0)
            else:
                raise self._refusal()
        outcome = mine.outcomes.popleft()
        if mine.is_full:
            mine.is_full = False
            self._full.pop(mine, None)
            self.moved.resolve(None)
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def _other_reader(self, task: asyncio.Task[object]) -> asyncio.Task[object] | None:
        """A task that reads a full branch, for which another one waits."""
        if self._overflow == "auto":
            # The first one is enough: when it moves or ends, this is decided anew.
            for full in self._full:
                reader = full.reader()
                if reader is not None and reader is not task and not reader.done():
                    return reader
        return None

    async def _wait_for(self, reader: asyncio.Task[object]) -> None:
        """Wait until something moves, or the reader ends without having made room."""
        waiting = self._awaited.get(reader, 0)
        if not waiting:
            reader.add_done_callback(self._reader_ended)
        self._awaited[reader] = waiting + 1
        try:
            await self.moved.wait()
        finally:
            self._awaited[reader] -= 1
            if not self._awaited[reader]:
                del self._awaited[reader]
                reader.remove_done_callback(self._reader_ended)

    def _reader_ended(self, _reader: asyncio.Task[object]) -> None:
        self.moved.resolve(None)

    def _refusal(self) -> WouldBlock:
        ahead = f"this branch is {self.maxsize} items ahead of the slowest, which is the maxsize of tee()"
        if self._overflow == "auto":
            return WouldBlock(
                f"{ahead}, and no other task reads that one: read both at the same time in tasks of their own, "
                'close the other, give tee() a larger maxsize, or overflow="block" to wait until it is read'
            )
        return WouldBlock(f"{ahead}: pull the other one, or close it")

    def _check(self, task: asyncio.Task[object]) -> None:
        """Refuse another loop, and a source that would wait for itself."""
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

    def _has_room(self) -> bool:
        """Whether every branch that is open may fall behind by one more item."""
        # Asked for each item of each branch: so the full ones are noted, and not looked for.
        self._forget_closed()
        return not self._full

    def _forget_closed(self) -> None:
        while self.gone:
            backlog = self.gone.popleft()
            if backlog in self._backlogs:
                del self._backlogs[backlog]
                self._full.pop(backlog, None)
                backlog.is_full = False

    async def _pull(self, task: asyncio.Task[object]) -> None:
        """Pulls the source once, for everybody. If it is cancelled, the next branch in need pulls."""
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
            # The pull was dropped, and has taken nothing.
            raise
        except (KeyboardInterrupt, SystemExit):
            # It ends the program, once: the other branches would raise it again.
            raise
        except BaseException as error:
            outcome = Failure(error)
        finally:
            self._puller = None
            self.moved.resolve(None)
        for backlog in self._backlogs:
            if backlog.is_open:
                backlog.outcomes.append(outcome)
                if len(backlog.outcomes) == self.maxsize:
                    backlog.is_full = True
                    self._full[backlog] = None

    async def left(self) -> None:
        """A branch was closed. With the last one the source is."""
        self.moved.resolve(None)
        self._forget_closed()
        if not self._backlogs:
            await self.source.aclose()
