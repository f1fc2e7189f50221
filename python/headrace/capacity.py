"""Limits in a tree: what runs holds its cost at a node and at everything above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from headrace._core import Capacity, Lease

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from types import TracebackType

__all__ = ["CapacitySource", "Lease"]


class CapacitySource:
    """A number of slots, under another number of slots, and so on up to a root.

    Acquiring takes its cost here and at every ancestor, all or nothing: nobody holds a part of a
    path while waiting for the rest. No event loop is needed to make one, and one tree serves any
    number of loops and threads.

    Law: at no node is more held than its limit, at any moment, whatever is cancelled or fails.
    Order: at one node, first come, first served; among nodes, the oldest that fits.
    Bound: one entry for each that waits.
    Cost: O(depth) to acquire and release without contention; a release looks once at each node that
    has somebody waiting.
    Cancel safety: whoever is cancelled while waiting holds nothing, also if it was granted in that
    moment.

    Args:
        limit: How many slots there are, a positive integer.
        parent: The node above; `None` for a root.
        name: For messages and displays.

    Raises:
        TypeError: `limit` is no integer, or `parent` no `CapacitySource`.
        ValueError: `limit` is not positive.
    """

    def __init__(
        self, limit: int, parent: CapacitySource | None = None, *, name: str | None = None
    ) -> None:
        if parent is not None and not isinstance(cast("object", parent), CapacitySource):
            raise TypeError(
                f"parent must be a CapacitySource or None, got {parent!r} ({type(parent).__name__})"
            )
        self._core: Capacity = Capacity(limit, None if parent is None else parent._core)
        self._parent = parent
        self._name = name
        self._children: WeakSet[CapacitySource] = WeakSet()
        if parent is not None:
            parent._children.add(self)

    def acquire(self, cost: int = 1) -> Acquisition:
        """Waits for `cost` slots: `lease = await capacity.acquire()`, or `async with capacity.acquire() as lease:`.

        Args:
            cost: How many slots, a positive integer.

        Raises:
            TypeError: `cost` is no integer.
            ValueError: `cost` is not positive, or above a limit on the path, so that it could never
                be had.
        """
        return Acquisition(self._core.acquire(cost))

    def try_acquire(self, cost: int = 1) -> Lease | None:
        """A lease of `cost` slots, or `None` if it cannot be had now.

        Never waits, and never overtakes those who do.

        Raises:
            TypeError: `cost` is no integer.
            ValueError: `cost` is not positive, or above a limit on the path.
        """
        return self._core.try_acquire(cost)

    @property
    def name(self) -> str | None:
        """What it is called in messages and displays."""
        return self._name

    @property
    def parent(self) -> CapacitySource | None:
        """The node above; `None` for a root."""
        return self._parent

    @property
    def children(self) -> tuple[CapacitySource, ...]:
        """The nodes below that are still in use."""
        return tuple(self._children)

    @property
    def limit(self) -> int:
        """How many slots there are."""
        return self._core.limit

    @property
    def held(self) -> int:
        """How many are held, here and below."""
        return self._core.held

    @property
    def waiting(self) -> int:
        """How many wait, here and below."""
        return self._core.waiting

    @property
    def available(self) -> int:
        """The largest cost that could be had now: what is free here and at every ancestor."""
        return self._core.available

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<CapacitySource{name}: {self.held} of {self.limit} held, {self.waiting} waiting>"


class Acquisition:
    """A lease to come: await it, or use it as an async context manager, which releases the lease."""

    __slots__ = ("_lease", "_waiting")

    def __init__(self, waiting: Coroutine[Any, Any, Lease]) -> None:
        self._waiting = waiting
        self._lease: Lease | None = None

    def __await__(self) -> Generator[Any, Any, Lease]:
        return self._waiting.__await__()

    async def __aenter__(self) -> Lease:
        """The lease, when it is there."""
        self._lease = await self._waiting
        return self._lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Releases the lease."""
        if self._lease is not None:
            self._lease.release()
