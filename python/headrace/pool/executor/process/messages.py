"""The messages between a driver and its workers: pickled tasks, values and errors, as the parts of frames.

`worker_process.py` and `worker.py` use it. A message is pickled with protocol 5. Large buffers, such as those of numpy arrays, are parts
of their own and are not copied into the pickle.

Unpickling runs code. A message comes from a process that this one has started, or that has started this one.

**Functions** are sent by reference: the worker imports their module. Closures, lambdas, and the functions of an
interactive session or a notebook cannot be sent so: they are sent by value, if cloudpickle is installed.

**Errors** are unpickled once in the worker, since an exception whose `__init__` takes other arguments can be pickled and not unpickled.
Such an error travels as a `RemoteError`. The worker classifies each error while it has the original; the verdict travels beside it.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from enum import IntEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from headrace._internal.reprs import safe_str
from headrace.errors import NotSendable, RemoteError
from headrace.task.failure import Verdict, attach_verdict, classify

if TYPE_CHECKING:
    from collections.abc import Sequence

Buffer: TypeAlias = bytes | bytearray | memoryview
Parts: TypeAlias = tuple[Buffer, ...]


class Kind(IntEnum):
    """The kind of a frame."""

    SETUP = 0
    """To a worker: its `Setup`."""
    RUN = 1
    """To a worker: a task. Its position is the next one."""
    CANCEL = 2
    """To a worker: cancel the asyncio task at a position."""
    CREDIT = 3
    """To a worker: the number of values that the task at a position may send more."""
    STOP = 4
    """To a worker: end."""
    HELLO = 5
    """From a worker: it can run tasks."""
    FAILED = 6
    """From a worker: it cannot start; the text of the error."""
    EMIT = 7
    """From a worker: a value of the task at a position."""
    SETTLE = 8
    """From a worker: the amounts that the task at a position has settled."""
    RETURNED = 9
    """From a worker: the final value."""
    RAISED = 10
    """From a worker: the error."""
    VETOED = 11
    """From a worker: the task was vetoed and has not begun."""
    BEGUN = 12
    """From a host: the numbers of tasks that its workers call, as an array of 64-bit integers."""
    SLOTS = 13
    """From a host: the number of its slots, in place of a position."""


def dumps(value: object, *, by_value: bool = False, has_main: bool = True) -> Parts:
    """Return the parts of a message.

    Args:
        value: The value of the message.
        by_value: Whether its functions cannot be sent by reference, although pickle could do so.
        has_main: Whether the receiver has the main module of this program. Otherwise all that is defined there is sent by value.

    Raises:
        Exception: The value cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        if by_value:
            raise pickle.PicklingError(
                "defined in an interactive session, which a worker cannot import"
            )
        body = pickle.dumps(value, 5, buffer_callback=buffers.append)
        if not has_main and b"__main__" in body:
            raise pickle.PicklingError("defined in the main module, which other machines lack")
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        cloudpickle = _cloudpickle()
        if cloudpickle is None:
            raise
        buffers.clear()
        try:
            body = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
        except Exception:
            # The first error says more about the value.
            raise error from None
    return (body, *(buffer.raw() for buffer in buffers))


def loads(parts: Sequence[Buffer]) -> Any:
    """Return the value of a message."""
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 (from our own processes)


def dump_task(name: str, task: tuple[object, ...], *, has_main: bool = True) -> Parts:
    """Return the parts of a task.

    Args:
        name: The name of the task, for the message.
        task: Its function first.
        has_main: Whether the worker imports the main module of this program.

    Raises:
        NotSendable: The task cannot be pickled.
    """
    try:
        return dumps(task, by_value=_is_interactive(task[0]), has_main=has_main)
    except Exception as error:
        raise NotSendable(
            f"{name} cannot be sent to another process: {_text(error)}; a function and its arguments must be picklable: "
            f"define the function at the top of a module, or run pip install 'headrace[closures]', which sends closures and lambdas too"
        ) from error


def load_task(parts: Sequence[Buffer]) -> Any:
    """Return a task, as `dump_task` got it.

    Raises:
        NotSendable: The task cannot be unpickled here.
    """
    try:
        return loads(parts)
    except Exception as error:
        raise NotSendable(f"the task cannot be read in a worker: {_text(error)}") from error


def dump_value(value: object, verb: str) -> Parts:
    """Return the parts of a value that a task has returned or yielded.

    Raises:
        NotSendable: The value cannot be pickled.
    """
    try:
        return dumps(value)
    except Exception as error:
        raise NotSendable(
            f"the {type(value).__name__} that the task {verb} cannot be sent to another process: {_text(error)}"
        ) from error


def load_value(parts: Sequence[Buffer], verb: str) -> object:
    """Return a value that a task has returned or yielded.

    Raises:
        NotSendable: The value cannot be unpickled here.
    """
    try:
        return loads(parts)
    except Exception as error:
        raise NotSendable(
            f"the value that the task {verb} cannot be read in this process: {_text(error)}"
        ) from error


def dump_error(error: BaseException) -> Parts:
    """Return the parts of an error: the error itself, its verdict, and the text of its traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        body = pickle.dumps(error, 5)
        pickle.loads(body)  # noqa: S301 (its own)
    except Exception:
        body = pickle.dumps(RemoteError(_type_name(error), safe_str(error)), 5)
    return dumps((body, classify(error), text))


def load_error(parts: Sequence[Buffer], where: str) -> BaseException:
    """Return an error of a task, with the traceback of the worker as a note."""
    try:
        body, verdict, text = cast("tuple[bytes, Verdict, str]", loads(parts))
    except Exception as unreadable:
        return NotSendable(
            f"the error of the task cannot be read in this process: {_text(unreadable)}"
        )
    try:
        error: object = pickle.loads(body)  # noqa: S301 (from our own processes)
    except Exception as unreadable:
        error = RemoteError(
            text.strip().rpartition("\n")[2], f"(cannot be read here: {_text(unreadable)})"
        )
    if not isinstance(error, BaseException):
        error = RemoteError(type(error).__name__, safe_str(error))
    attach_verdict(error, verdict)
    error.add_note(f"in {where}:\n{text.rstrip()}")
    return error


def _type_name(error: BaseException) -> str:
    """Return the full name of the type of an error."""
    kind = type(error)
    is_builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {safe_str(error)}"


def _is_interactive(function: object) -> bool:
    """Return whether a function is defined in a `__main__` that a worker cannot import."""
    main = sys.modules.get("__main__")
    return getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__")


def _cloudpickle() -> Any:
    try:
        return import_module("cloudpickle")
    except ImportError:
        return None
