"""Replace anyio's `Lock`, `Semaphore` and `CapacityLimiter`: its names over a `CapacitySource`.

anyio also records which task or borrower holds a permit; here the leases do.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import anyio

from headrace import CapacitySource

if TYPE_CHECKING:
    from headrace import Lease

__all__ = ["CapacityLimiter", "Lock", "Semaphore"]


class _Counted(NamedTuple):
    tasks_waiting: int


class _Locked(NamedTuple):
    locked: bool
    owner: anyio.TaskInfo | None
    tasks_waiting: int


class _Borrowed(NamedTuple):
    borrowed_tokens: float
    total_tokens: float
    borrowers: tuple[object, ...]
    tasks_waiting: int


class Semaphore:
    """A release returns the oldest lease; one release too many raises the limit."""

    def __init__(
        self, initial_value: int, *, max_value: int | None = None, fast_acquire: bool = False
    ) -> None:
        self.max_value = max_value
        self._capacity = CapacitySource(initial_value)
        self._leases: deque[Lease] = deque()

    @property
    def value(self) -> Any:
        return self._capacity.available

    async def acquire(self) -> None:
        self._leases.append(await self._capacity.acquire())

    def acquire_nowait(self) -> None:
        lease = self._capacity.acquire_nowait()
        if lease is None:
            raise anyio.WouldBlock
        self._leases.append(lease)

    def release(self) -> None:
        if self._leases:
            self._leases.popleft().release()
        elif self.value == self.max_value:
            raise ValueError(f"semaphore released too many times: it has {self.value} already")
        else:
            self._capacity.resize(self._capacity.limit + 1)

    def statistics(self) -> _Counted:
        return _Counted(self._capacity.waiting)

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()


class Lock:
    def __init__(self, *, fast_acquire: bool = False) -> None:
        self._capacity = CapacitySource(1)
        self._held: tuple[Lease, anyio.TaskInfo] | None = None

    async def acquire(self) -> None:
        self._held = await self._capacity.acquire(), anyio.get_current_task()

    def acquire_nowait(self) -> None:
        lease = self._capacity.acquire_nowait()
        if lease is None:
            raise anyio.WouldBlock
        self._held = lease, anyio.get_current_task()

    def release(self) -> None:
        if self._held is None:
            raise RuntimeError("lock is not held")
        (lease, _), self._held = self._held, None
        lease.release()

    def locked(self) -> bool:
        return not self._capacity.peek()

    def statistics(self) -> _Locked:
        return _Locked(self.locked(), self._held and self._held[1], self._capacity.waiting)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class CapacityLimiter:
    def __init__(self, total_tokens: float) -> None:
        self._capacity = CapacitySource(total_tokens)
        self._leases: dict[object, Lease] = {}

    @property
    def total_tokens(self) -> Any:
        return self._capacity.limit

    @total_tokens.setter
    def total_tokens(self, value: float) -> None:
        self._capacity.resize(value)

    @property
    def borrowed_tokens(self) -> Any:
        return self._capacity.held

    @property
    def available_tokens(self) -> Any:
        return self._capacity.available

    def acquire_nowait(self) -> None:
        self.acquire_on_behalf_of_nowait(anyio.get_current_task().id)

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        lease = self._capacity.acquire_nowait()
        if lease is None:
            raise anyio.WouldBlock
        self._leases[borrower] = lease

    async def acquire(self) -> None:
        await self.acquire_on_behalf_of(anyio.get_current_task().id)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self._leases[borrower] = await self._capacity.acquire()

    def release(self) -> None:
        self.release_on_behalf_of(anyio.get_current_task().id)

    def release_on_behalf_of(self, borrower: object) -> None:
        self._leases.pop(borrower).release()

    def statistics(self) -> _Borrowed:
        return _Borrowed(
            self.borrowed_tokens, self.total_tokens, tuple(self._leases), self._capacity.waiting
        )

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()
