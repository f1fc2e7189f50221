"""Notes on errors, groups of errors and PEP 479, for the drivers written in Python. The native drivers do the same.

Used by `bridge`, `pull.base`, `push.fanout` and `pool.run`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from headrace._core import attach_item
from headrace._internal.reprs import short_repr

if TYPE_CHECKING:
    from collections.abc import Sequence


def ends_program(error: BaseException) -> bool:
    """Whether an error is one that asyncio raises out of the event loop; any other one is an error of one item."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def as_group(errors: Sequence[BaseException], message: str) -> BaseException:
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
            add_note_once(ending, f"{message}: {error!r}")
    return ending


def raise_all(errors: Sequence[BaseException], message: str) -> None:
    """Raise a single error as it is, several as a group. Without errors, return."""
    if errors:
        raise as_group(errors, message)


def raise_closing(
    cancellation: BaseException | None, errors: Sequence[BaseException], message: str
) -> None:
    """Raise the result of closing: a cancellation that arrived meanwhile, with notes on the errors, or the errors.

    An error that ends the program takes precedence over the cancellation.
    """
    if cancellation is not None and not any(map(ends_program, errors)):
        for error in errors:
            cancellation.add_note(f"while closing: {error!r}")
        raise cancellation
    raise_all(errors, message)


def add_note_once(error: BaseException, note: str) -> None:
    """Add a note to an error, unless it has that note already.

    An exception that takes no note is still raised, without the note.
    """
    with suppress(Exception):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def name_item(error: BaseException, name: str, index: int, item: object) -> None:
    """Add the note that names the item of a call to the error of the call, and attach the item for the handler of a `catch`."""
    add_note_once(error, f"raised in {name}: item {index}, {short_repr(item)}")
    attach_item(error, item)


def name_failed(error: BaseException, callable_name: str, item: object) -> None:
    """Add the note that names an operator's callable and the item that it was called with, as the native drivers do."""
    add_note_once(error, f"raised by {callable_name}: item {short_repr(item)}")


def wrap_iteration_error(error: BaseException, function: str) -> BaseException:
    """Return the error of a callable as the consumer gets it.

    `StopIteration`, `StopAsyncIteration` and `GeneratorExit` would end the consumer's iteration. They become a
    `RuntimeError` with the original as its cause (PEP 479).
    """
    if not isinstance(error, (StopIteration, StopAsyncIteration, GeneratorExit)):
        return error
    wrapped = RuntimeError(f"{function} raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
