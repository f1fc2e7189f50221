"""CPython's own tests of `asyncio.Lock` and `asyncio.Semaphore`, run on capacities under their names.

These cases record known faults of asyncio's locks: cancelled waiters, lost wake-ups and unfairness.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, Lease
from tests.cpython import cases_of, load_with, run_case

if TYPE_CHECKING:
    from types import ModuleType

MODULE = "test.test_asyncio.test_locks"

EXCLUDED = {
    "test_repr": "the exact text",
    "test_lock_doesnt_accept_loop_parameter": "checks for a parameter that asyncio once had",
    "test_cancel_race": "reads the futures of waiters",
    "test_acquire_fifo_order_2": "checks the order in which tasks run that were all granted",
    "test_acquire_fifo_order_4": "the same, for a task that takes free capacity before the others are woken",
}
CASES = cases_of(MODULE, "LockTests", "SemaphoreTests")


class Semaphore:
    """asyncio's semaphore on a capacity: a release returns the oldest lease."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        self._capacity = CapacitySource(value)
        self._leases: deque[Lease] = deque()

    # Attributes of asyncio's semaphore that the cases read: the waiters and the remaining value.

    @property
    def _waiters(self) -> range:
        return range(self._capacity.snapshot().waiting)

    @property
    def _value(self) -> Any:
        return self._capacity.available

    def locked(self) -> bool:
        return not self._capacity.peek()

    async def acquire(self) -> bool:
        self._leases.append(await self._capacity.acquire())
        return True

    def release(self) -> None:
        if self._leases:
            self._leases.popleft().release()
        else:
            self._capacity.resize(self._capacity.limit + 1)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class BoundedSemaphore(Semaphore):
    def release(self) -> None:
        if not self._leases:
            raise ValueError("BoundedSemaphore released too many times")
        super().release()


class Lock(Semaphore):
    def __init__(self) -> None:
        super().__init__(1)

    def release(self) -> None:
        if not self._leases:
            raise RuntimeError("Lock is not acquired.")
        super().release()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    kinds = (Semaphore, BoundedSemaphore, Lock)
    return load_with(MODULE, {kind.__name__: kind for kind in kinds}, monkeypatch)


@pytest.mark.skipif(not CASES, reason="this interpreter has no `test` package")
@pytest.mark.parametrize("case", CASES or ["none"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# Many cases end while they hold leases.
@pytest.mark.filterwarnings("ignore:a lease was collected:ResourceWarning")
def test_cpython_case_passes(case: str, loaded: ModuleType) -> None:
    if why := EXCLUDED.get(case.partition(".")[2]):
        pytest.skip(why)
    run_case(loaded, case)


@pytest.mark.skipif(sys.version_info[:2] != (3, 13) or not CASES, reason="the figures are 3.13's")
def test_most_cases_are_public() -> None:
    public = [case for case in CASES if case.partition(".")[2] not in EXCLUDED]
    assert (len(public), len(CASES)) == (21, 27)
