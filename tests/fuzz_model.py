"""The model of the fuzzer: the places of all items and the reasons to wait, in plain Python."""

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
    "Pipeline",
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
"""Seconds that a slow call takes."""
MOST = 6
"""The highest limit of a capacity."""


class Refused(Exception):
    """The error of a callable that refuses an item."""

    def __init__(self, item: Item) -> None:
        super().__init__(item)
        self.item = item


class Thrown(Exception):
    """The error that ends a buffer."""


@dataclass(eq=False)
class Channel:
    """The items that went into one buffer, or are in one list, and have not come out of its pipeline."""

    number: int
    buffer: PushPullBufferObj[Item] | None
    order: str = "fifo"
    overflow: str = "block"
    # In the order in which their pushes started.
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
        """Record that the pipeline returned an item."""
        assert number in self.inside, (
            f"{(self.number, number)} was returned but is not in the channel"
        )
        if ordered and self.order == "fifo":
            assert number == self.inside[0], f"{number} was returned before {self.inside[0]}"
        self.inside.remove(number)


@dataclass(eq=False)
class Producer:
    """A push pipeline into some channels."""

    top: PushObj[int]
    targets: Callable[[int], Sequence[Channel]]
    # By the identity of the sinks that an error may name.
    channels: dict[int, Channel]


@dataclass(eq=False)
class Push:
    """A push in progress."""

    number: int
    producer: Producer
    task: asyncio.Future[Any]
    full: set[Channel]
    """The channels that were full when it started."""
    sizes: dict[Channel, int]
    refused: set[Channel]
    """The channels that refused it at its start."""
    is_cancelled: bool = False
    is_new: bool = True


@dataclass(eq=False)
class Pipeline:
    """A pull pipeline over some channels."""

    channels: list[Channel]
    merge: str
    stream: PullObj[Any] = field(init=False)
    mapper: Any = None
    version: int = 0
    is_slow: bool = False
    calls: int = 0
    """The number of slow calls in progress."""
    pooled: CapacitySource | None = None
    limits: list[CapacitySource] = field(default_factory=list)
    ordered: bool = True
    bound: int = 0
    """The number of items that it may hold, according to the docstrings of its operators."""
    over: bool = False
    pulls: list[asyncio.Future[Any]] = field(default_factory=list)

    def make_function(self) -> Callable[[Any], Any]:
        """Create a callable for each item, which must not be called after it was replaced."""
        version = self.version

        def checked(item: Any) -> Any:
            assert version == self.version, (
                f"{item} was passed to a callable that had been replaced"
            )
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
        """Return whether it is a zip with an exhausted channel. Such a zip closes its other channels and drops their items."""
        return self.merge == "zip" and any(channel.is_spent for channel in self.channels)

    def take(self, pull: asyncio.Future[Any]) -> None:
        """Record that a pull has ended."""
        error = pull.exception()
        if isinstance(error, StopAsyncIteration):
            spent = [channel.ended and not channel.inside for channel in self.channels]
            assert self.over or (any(spent) if self.merge == "zip" else all(spent)), "early end"
            assert self.merge == "zip" or not any(c.error for c in self.channels), "error lost"
            self.close()
        elif isinstance(error, ClosedError):
            assert self.over, f"unexpected: {error!r}"
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
        """Record that it is closed, and that its buffers accept no items."""
        self.over = True
        for channel in self.channels:
            channel.closed = channel.ended = True
            channel.inside.clear()
            channel.error = None

    def may_wait(self) -> bool:
        """Return whether a pull of it has a reason to wait."""
        if self.calls or any(leaf.waiting for leaf in (*self.limits, self.pooled) if leaf):
            return True
        open_channels = [channel for channel in self.channels if not channel.is_spent]
        starved = [channel.is_starved for channel in open_channels]
        if self.merge in ("zip", "round robin"):
            return any(starved)
        return bool(starved) and (starved[0] if self.merge == "concat" else all(starved))


@dataclass(eq=False)
class Worker:
    """A task that requests a slot and holds it until `unpin` is set."""

    leaf: CapacitySource
    unpin: asyncio.Event = field(default_factory=asyncio.Event)
    lease: Lease | None = None
    task: asyncio.Task[None] = field(init=False)

    async def work(self) -> None:
        async with self.leaf.acquire({"slots": 1, "dollars": 1}) as self.lease:
            await self.unpin.wait()
