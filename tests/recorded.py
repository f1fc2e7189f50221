"""`Recorded`: an answer of a service to a call that fails, and the verdict on it. Errors for the tests of `classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Recorded:
    """An answer and its verdict.

    Attributes:
        service: The service that answers so.
        name: A name that is unique among all answers; the path under which a test's server answers so.
        kind: The kind of the verdict.
        delay: The delay of the verdict.
        code: The part of the verdict's reason that the service's answer states, or "".
        status: The HTTP status.
        headers: One `name: value` in each line.
        body: The body.
        by_body: Whether the verdict or its delay depends on the body, which some clients do not keep.
    """

    service: str
    name: str
    kind: str
    delay: float | None
    code: str
    status: int
    headers: str
    body: str
    by_body: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        """Return the headers as pairs."""
        lines = [line.strip() for line in self.headers.strip().splitlines()]
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def raised_by(call: Callable[[], object]) -> BaseException:
    """Return the error that a call raises."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("the client raised nothing")


class ServiceError(Exception):
    """An error with any attributes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("no")
        vars(self).update(attributes)
