"""Errors on their way from a callable to the consumer, where Python drives it; the core does the same in its drivers."""

from __future__ import annotations

from contextlib import suppress

__all__ = ["noted", "speechless"]


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
