"""Errors on their way from a callable to the consumer, where Python drives it; the core does the same in its drivers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["as_one", "ends_program", "noted", "raise_all", "raise_closing", "speechless"]


def ends_program(error: BaseException) -> bool:
    """Whether an error is one that asyncio raises out of the event loop; any other one is an error of one item."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def as_one(errors: Sequence[BaseException], message: str) -> BaseException:
    """Return a single error unchanged, several as a group.

    An error that ends the program is returned itself, with notes on the others: inside a group it would end nothing.
    """
    if len(errors) == 1:
        return errors[0]
    ending = next(filter(ends_program, errors), None)
    if ending is None:
        return BaseExceptionGroup(message, errors)
    for error in errors:
        if error is not ending:
            noted(ending, f"{message}: {error!r}")
    return ending


def raise_all(errors: Sequence[BaseException], message: str) -> None:
    """Raises one error as it is, several as a group, and none not at all."""
    if errors:
        raise as_one(errors, message)


def raise_closing(
    struck: BaseException | None, errors: Sequence[BaseException], message: str
) -> None:
    """Raise the result of closing: a cancellation that arrived meanwhile, with notes on the errors, or the errors.

    An error that ends the program goes before the cancellation.
    """
    if struck is not None and not any(map(ends_program, errors)):
        for error in errors:
            struck.add_note(f"while closing: {error!r}")
        raise struck
    raise_all(errors, message)


def noted(error: BaseException, note: str) -> None:
    """Adds a note to an error, once.

    An exception that takes no note still has to arrive: then there is none.
    """
    with suppress(Exception):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def speechless(error: BaseException, what: str) -> BaseException:
    """The error of `what` was called, for the consumer.

    One by which iteration speaks would be taken for something else there, so it becomes a `RuntimeError` with the
    original as its cause (PEP 479).
    """
    if not isinstance(error, (StopIteration, StopAsyncIteration, GeneratorExit)):
        return error
    wrapped = RuntimeError(f"{what} raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
