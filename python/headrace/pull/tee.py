"""`share`: one stream for several consumers, each of which sees every item.

Nobody drives the source but those who want its items: a branch that needs one which nobody has pulled
yet pulls it, in its own pull, and hands it to all. So nothing runs unless it is wanted, and there is no
task to be looked after.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeVar, cast

from headrace._core import AsyncIterSource, attach
from headrace._internal.depth import nested
from headrace._internal.reprs import amount, shown
from headrace._internal.validate import whole
from headrace.errors import CLOSING, ForkError, WouldBlock, WrongLoopError
from headrace.pull._background import Failure
from headrace.pull.source import SourceObj
from headrace.signal import WaitObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.pull.base import PullObj

__all__ = ["PullBranchObj", "share"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


MOST_BRANCHES = 100_000
"""How many streams share one: each is made at once, and sees every item."""


def share(
    source: PullObj[T],
    n: int,
    *,
    maxsize: int = 1024,
    overflow: Literal["block", "error"] = "block",
) -> tuple[PullBranchObj[T], ...]:
    """Several streams of all items of one; see `PullObj.share`."""
    if whole("n", 1, n) > MOST_BRANCHES:
        raise ValueError(f"n must be at most {MOST_BRANCHES}, got {shown(n)}")
    whole("maxsize", 1, maxsize)
    if overflow not in ("block", "error"):
        raise ValueError(f'overflow must be "block" or "error", got {overflow!r}')
    depth = nested(source, "share()")
    attach(source)
    hub = _Hub(source, maxsize, waits=overflow == "block")
    return tuple(PullBranchObj(_Reader(hub), depth) for _ in range(n))


class PullBranchObj(SourceObj[T_co], stock=True):
    """One of the streams that `PullObj.share` gives."""

    def __init__(self, reader: _Reader[T_co], nesting: int) -> None:
        self._nesting = nesting
        # The reader itself is the feed's alone, so that it is noticed when it is dropped.
        self._look = reader.look()
        super().__init__(AsyncIterSource(reader))

    @property
    def source(self) -> PullObj[T_co]:
        """What is shared."""
        return self._look[0].source

    def _facts(self) -> Iterator[str]:
        hub, backlog = self._look
        yield amount(len(backlog.outcomes), hub.maxsize, "behind")
        yield from super()._facts()

    def restart(self) -> None:
        """Raises.

        Raises:
            RuntimeError: Always: what a branch has seen is gone, and the others are elsewhere.
        """
        raise RuntimeError(
            "a branch of share() cannot restart; close all of them, restart the source, and share it again"
        )


class _Backlog(Generic[T]):
    """What one branch has not seen yet."""

    __slots__ = ("is_full", "is_open", "outcomes")

    def __init__(self) -> None:
        self.outcomes: deque[T | Failure] = deque()
        self.is_open: bool = True
        self.is_full: bool = False
        """Whether the hub counts it among those without room for one more item."""

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

    def __init__(self, source: PullObj[T], maxsize: int, *, waits: bool) -> None:
        self.source = source
        self.maxsize = maxsize
        self._waits = waits
        # Those that are open, as keys; some may have been closed since the last look.
        self._backlogs: dict[_Backlog[T], None] = {}
        self._full = 0
        """How many of them have no room for one more item."""
        self.gone: deque[_Backlog[T]] = deque()
        """Those that were closed since the last look, told by whoever closed them, in any thread."""
        self._puller: asyncio.Task[object] | None = None
        """The task of the branch that pulls the source now."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self.moved: WaitObject[None] = WaitObject()
        """Something changed that a branch may wait for."""

    def join(self) -> _Backlog[T]:
        """A new branch, which sees everything from now on."""
        backlog: _Backlog[T] = _Backlog()
        self._backlogs[backlog] = None
        return backlog

    async def take(self, mine: _Backlog[T]) -> T:
        """What is next for a branch: pulled by it, if nobody has."""
        while not mine.outcomes:
            if self._ended or not mine.is_open:
                raise StopAsyncIteration
            task = self._check()
            if self._puller is not None:
                await self.moved.wait()
            elif self._has_room():
                await self._pull(task)
            elif self._waits:
                await self.moved.wait()
            else:
                raise WouldBlock(
                    f"this branch is {self.maxsize} items ahead of the slowest, which is the maxsize; "
                    "pull that one, or close it"
                )
        outcome = mine.outcomes.popleft()
        if mine.is_full:
            mine.is_full = False
            self._full -= 1
            self.moved.resolve(None)
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def _check(self) -> asyncio.Task[object]:
        """The task that pulls a branch; refuses another loop, and a source that would wait for itself."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise WrongLoopError(
                "the branches of a shared stream are under way on another event loop; use them there, or close them there first"
            )
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if self._puller is task:
            raise RuntimeError(
                "this stream is being pulled already: its own callable cannot pull it"
            )
        return task

    def _has_room(self) -> bool:
        """Whether every branch that is open may fall behind by one more item."""
        # Asked for each item of each branch: so they are counted, and not looked at.
        self._forget_closed()
        return not self._full

    def _forget_closed(self) -> None:
        while self.gone:
            backlog = self.gone.popleft()
            if backlog in self._backlogs:
                del self._backlogs[backlog]
                self._full -= backlog.is_full
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
                    self._full += 1

    async def left(self) -> None:
        """A branch was closed. With the last one the source is."""
        self.moved.resolve(None)
        self._forget_closed()
        if not self._backlogs:
            await self.source.aclose()
