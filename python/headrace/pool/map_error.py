"""`Failure` and `MapError`: the failed items of `headrace.amap` and `headrace.map`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """An item whose call failed."""

    index: int
    """The position of the item among the items, counted from 0."""
    item: Any
    """The item."""
    error: BaseException
    """The exception object that the last call raised."""
    attempts: int
    """The number of calls, without throttled ones; 0 if the function was not called for this item."""


class MapError(HeadraceError, ExceptionGroup[Exception]):
    """Some calls of `headrace.map`, or of `headrace.amap(...).collect()`, failed. It carries the results of all others.

    As an `ExceptionGroup` it works with `except*`. Its `exceptions` are the errors of `failures`, and those that `items` raised.
    """

    results: list[Any]
    """The results of the calls that did not fail, in their order."""
    failures: list[Failure]
    """The failed items."""

    def __new__(
        cls,
        message: str,
        errors: Sequence[Exception],
        results: list[Any] | None = None,
        failures: list[Failure] | None = None,
    ) -> Self:
        """Make the group."""
        self = super().__new__(cls, message, errors)
        self.results = [] if results is None else results
        self.failures = [] if failures is None else failures
        return self

    def __init__(
        self,
        message: str,
        errors: Sequence[Exception],
        results: list[Any] | None = None,
        failures: list[Failure] | None = None,
    ) -> None:
        # The arguments of a group are these two: it is unpickled with them, and with its attributes.
        super().__init__(message, errors)

    def derive(self, errors: Sequence[Any], /) -> MapError:  # type: ignore[override]  # it contains exceptions only
        """Return a part of this group, with the failures of its errors and all results."""
        kept = {id(error) for error in errors}
        failures = [failure for failure in self.failures if id(failure.error) in kept]
        return MapError(self.message, errors, self.results, failures)
