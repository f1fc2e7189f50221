"""`RelayedWork`: a task of the driver at its host, whose values and outcome are passed on as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.pool.executor.process.messages import Kind, dump_error
from headrace.pool.executor.process.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.executor.process.messages import Buffer, Parts


class Driver(Protocol):
    """The driver, as its host sees it."""

    def on_begun(self, number: int) -> None:
        """Note that a worker calls a task."""
        ...

    def on_message(self, number: int, kind: int, parts: Parts) -> None:
        """Note a message of a task that runs."""
        ...

    def on_outcome(self, number: int, kind: int, parts: Parts) -> None:
        """Note the outcome of a task."""
        ...


class RelayedWork(Work):
    """A task of the driver.

    Args:
        driver: The driver.
        number: The number of the task at the driver.
        message: The pickled task.
        name: The name of the task.
    """

    __slots__ = ("_driver", "_has_ended", "_is_begun", "_name", "_number")

    def __init__(self, driver: Driver, number: int, message: Parts, name: bytes) -> None:
        super().__init__(message)
        self._driver = driver
        self._number = number
        self._name = name
        self._is_begun = False
        self._has_ended = False

    @property
    def name(self) -> str:
        """The name of the task."""
        return self._name.decode()

    def begin(self) -> None:
        """Note that the worker calls the task."""
        if not self._is_begun and not self._has_ended:
            self._is_begun = True
            self._driver.on_begun(self._number)

    def receive(self, kind: int, parts: Sequence[Buffer], where: str) -> None:
        """Pass a message of the worker on."""
        if kind in (Kind.RETURNED, Kind.RAISED):
            self._end(kind, tuple(parts))
        elif not self._has_ended:
            self._driver.on_message(self._number, kind, tuple(parts))

    def end_with_error(self, error: BaseException) -> None:
        """Send the error."""
        self._end(Kind.RAISED, dump_error(error))

    def _end(self, kind: int, parts: Parts) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.leave_worker()
            self._driver.on_outcome(self._number, kind, parts)
