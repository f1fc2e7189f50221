"""What the fuzzer believes: which items are where, who waits for what and why, as far as plain Python can tell."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace import ClosedError, PullConcatObj, PullObj, PullRaceObj, PullRoundRobinObj, PullZipObj

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace import CapacitySource, Lease, PushObj, PushPullBufferObj

__all__ = [
    "CALL",
    "MERGES",
    "MOST",
    "Channel",
    "Item",
    "Line",
    "Producer",
    "Push",
    "Refused",
    "Thrown",
    "Worker",
]

Item = tuple[int, int]
"""The number of a channel, and a number."""

MERGES: dict[str, Callable[..., PullObj[Any]]] = {
    "concat": PullConcatObj,
    "merge": PullRaceObj,
    "round robin": PullRoundRobinObj,
    "zip": PullZipObj,
}
CALL = 0.5
"""How many seconds a call takes that is not done at once."""
MOST = 6
"""The highest limit of a capacity."""


class Refused(Exception):
    """What a callable says of an item that it does not like."""

    def __init__(self, item: Item) -> None:
        super().__init__(item)
        self.item = item


class Thrown(Exception):
    """What a producer ends a buffer with."""


@dataclass(eq=False)
class Channel:
    """What goes into one buffer, or stands in one list, and has not come out of its line."""

    number: int
    buffer: PushPullBufferObj[Item] | None
    order: str = "fifo"
    overflow: str = "block"
    # In the order in which their pushes began.
    inside: list[int] = field(default_factory=list)
    dropped: int = 0
    ended: bool = False
    closed: bool = False
    error: Thrown | None = None

    @property
    def is_empty(self) -> bool:
        return not len(self.inside if self.buffer is None else self.buffer)

    @property
    def is_starved(self) -> bool:
        return self.is_empty and not self.ended

    @property
    def is_spent(self) -> bool:
        return self.is_empty and self.ended

    def take(self, number: int, *, ordered: bool) -> None:
        """The line gave this one."""
        assert number in self.inside, f"{(self.number, number)} was given, and was not there"
        if ordered and self.order == "fifo":
            assert number == self.inside[0], f"{number} was given before {self.inside[0]}"
        self.inside.remove(number)


@dataclass(eq=False)
class Producer:
    """A push line into some channels."""

    top: PushObj[int]
    targets: Callable[[int], Sequence[Channel]]
    # By the sinks that an error may name.
    channels: dict[int, Channel]


@dataclass(eq=False)
class Push:
    """A push under way."""

    number: int
    producer: Producer
    task: asyncio.Future[Any]
    full: set[Channel]
    """Those that could not take it when it began."""
    sizes: dict[Channel, int]
    refused: set[Channel]
    """Those that did not take it then, nor later."""
    is_cancelled: bool = False
    is_fresh: bool = True


@dataclass(eq=False)
class Line:
    """A pull line over some channels."""

    channels: list[Channel]
    merge: str
    stream: PullObj[Any] = field(init=False)
    mapper: Any = None
    version: int = 0
    is_slow: bool = False
    calls: int = 0
    """How many calls that take their time are under way."""
    pooled: CapacitySource | None = None
    limits: list[CapacitySource] = field(default_factory=list)
    ordered: bool = True
    bound: int = 0
    """How many items it may hold: what its links hold, by their docstrings."""
    over: bool = False
    pulls: list[asyncio.Future[Any]] = field(default_factory=list)

    def function(self) -> Callable[[Any], Any]:
        """What is called with each item, for as long as it is the newest."""
        version = self.version

        def checked(item: Any) -> Any:
            assert version == self.version, f"{item} went into a callable that had been replaced"
            if self.merge != "zip" and item[1] % 7 == 3:
                raise Refused(item)
            return item

        async def slow(item: Any) -> Any:
            self.calls += 1
            try:
                result = checked(item)
                await asyncio.sleep(CALL)
            finally:
                self.calls -= 1
            return result

        return slow if self.is_slow else checked

    def may_be_cut(self) -> bool:
        """Whether it is a zip without more of one channel: once it knows, it closes the others and drops what it has of them."""
        return self.merge == "zip" and any(channel.is_spent for channel in self.channels)

    def take(self, pull: asyncio.Future[Any]) -> None:
        """A pull has ended."""
        error = pull.exception()
        if isinstance(error, StopAsyncIteration):
            spent = [channel.ended and not channel.inside for channel in self.channels]
            assert self.over or (any(spent) if self.merge == "zip" else all(spent)), "early end"
            assert self.merge == "zip" or not any(c.error for c in self.channels), "error lost"
            self.close()
        elif isinstance(error, ClosedError):
            assert self.over, f"closed by nobody: {error!r}"
        elif isinstance(error, Thrown):
            (channel,) = (c for c in self.channels if c.error is error)
            channel.error = None
        elif isinstance(error, Refused):
            self.channels_by_number()[error.item[0]].take(error.item[1], ordered=self.ordered)
        elif error is not None:
            raise error
        else:
            items: Sequence[Item] = pull.result() if self.merge == "zip" else (pull.result(),)
            for number, item in items:
                self.channels_by_number()[number].take(item, ordered=self.ordered)

    def channels_by_number(self) -> dict[int, Channel]:
        return {channel.number: channel for channel in self.channels}

    def close(self) -> None:
        """It is over, and its buffers take nothing any more."""
        self.over = True
        for channel in self.channels:
            channel.closed = channel.ended = True
            channel.inside.clear()
            channel.error = None

    def may_wait(self) -> bool:
        """Whether a pull of it has a reason to wait."""
        if self.calls or any(leaf.waiting for leaf in (*self.limits, self.pooled) if leaf):
            return True
        left = [channel for channel in self.channels if not channel.is_spent]
        starved = [channel.is_starved for channel in left]
        if self.merge in ("zip", "round robin"):
            return any(starved)
        return bool(starved) and (starved[0] if self.merge == "concat" else all(starved))


@dataclass(eq=False)
class Worker:
    """A task that asks for a slot, and keeps it until it is told to let go."""

    leaf: CapacitySource
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    lease: Lease | None = None
    task: asyncio.Task[None] = field(init=False)

    async def work(self) -> None:
        async with self.leaf.acquire({"slots": 1, "dollars": 1}) as self.lease:
            await self.let_go.wait()
