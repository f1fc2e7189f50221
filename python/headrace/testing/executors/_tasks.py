"""The tasks of the cases: functions that a worker imports by name. They take gates and marks as paths of files.

A task marks a moment by creating a file, and waits at a gate until another file exists. A task stops waiting when the case
has ended, which the file `STOP` in the directory of the gate says, or after `LONGEST` seconds. So none is left behind.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.pool.events import Final
from headrace.task._current_lease import current_lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

STOP = "stop"
LONGEST = 120.0
_STEP = 0.002

CARRIED: ContextVar[str] = ContextVar("CARRIED", default="nowhere")
LEFT: ContextVar[str] = ContextVar("LEFT", default="nowhere")


# Files.


def mark(path: str) -> None:
    """Create a file."""
    Path(path).touch()


def add_line(path: str, line: str) -> None:
    """Append a line to a file, in one write."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def lines(path: str) -> list[str]:
    """Return the lines of a file; none if it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _is_open(gate: str, end: float) -> bool:
    path = Path(gate)
    return (
        path.exists()
        or not path.parent.exists()
        or (path.parent / STOP).exists()
        or time.monotonic() > end
    )


# Results.


def identity(value: object) -> object:
    """Return the argument."""
    return value


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


async def double_async(number: int) -> int:
    """Return twice the number, after a suspension."""
    await asyncio.sleep(0)
    return 2 * number


def awaitable_double(number: int) -> Awaitable[int]:
    """Return a coroutine, as a plain function."""
    return double_async(number)


def nap(number: int, seconds: float) -> int:
    """Return the number after a delay."""
    time.sleep(seconds)
    return number


async def nap_async(number: int, seconds: float) -> int:
    """Return the number after a delay."""
    await asyncio.sleep(seconds)
    return number


def reverse(data: bytes) -> bytes:
    """Return the bytes in reverse."""
    return data[::-1]


def process() -> int:
    """Return the identifier of the process."""
    return os.getpid()


# Gates.


def wait(begun: str, gate: str) -> bool:
    """Mark the begin, and wait for the gate."""
    mark(begun)
    end = time.monotonic() + LONGEST
    while not _is_open(gate, end):
        time.sleep(_STEP)
    return True


async def wait_async(begun: str, gate: str) -> bool:
    """Mark the begin, and wait for the gate."""
    mark(begun)
    end = time.monotonic() + LONGEST
    while not _is_open(gate, end):
        await asyncio.sleep(_STEP)
    return True


def beat(log: str, gate: str) -> None:
    """Append lines to a file until the gate is open."""
    end = time.monotonic() + LONGEST
    while not _is_open(gate, end):
        add_line(log, "beat")
        time.sleep(_STEP)


async def clean_up(begun: str, cleaning: str, gate: str) -> None:
    """Wait until it is cancelled, and then for the gate."""
    mark(begun)
    end = time.monotonic() + LONGEST
    try:
        # Never opened.
        while not _is_open(f"{gate}.never", end):
            await asyncio.sleep(_STEP)
    finally:
        mark(cleaning)
        while not _is_open(gate, end):
            await asyncio.sleep(_STEP)


async def swallow(begun: str, gate: str) -> str:
    """Ignore cancellations until the gate is open."""
    mark(begun)
    end = time.monotonic() + LONGEST
    while not _is_open(gate, end):
        try:
            await asyncio.sleep(_STEP)
        except asyncio.CancelledError:
            mark(f"{begun}.ignored")
    return "ignored"


def count_in(log: str, seconds: float) -> None:
    """Append a line at the begin and at the end."""
    add_line(log, "+")
    time.sleep(seconds)
    add_line(log, "-")


# Errors.

INTERRUPTS: dict[str, type[BaseException]] = {
    "StopIteration": StopIteration,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "CancelledError": asyncio.CancelledError,
}


class TwoArgumentsError(Exception):
    """An error that pickles and does not unpickle."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code


class UnsendableError(Exception):
    """An error that does not pickle."""

    def __init__(self) -> None:
        super().__init__("holds a function")
        self.held = lambda: None


class AnswerError(Exception):
    """An error of a service: `classify` reads its status, its code and its headers."""

    def __init__(self, status: int, code: str = "", retry_after: str = "") -> None:
        super().__init__(status, code, retry_after)
        self.status_code = status
        self.code = code
        self.headers = {"retry-after": retry_after} if retry_after else {}


class UnsendableAnswerError(Exception):
    """An error of a service, which pickles and does not unpickle."""

    def __init__(self, *, status: int) -> None:
        super().__init__("refused")
        self.status_code = status


class Unsendable:
    """An object that does not pickle."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Refuse.

        Raises:
            TypeError: Always.
        """
        raise TypeError("this object cannot be sent")


def fail(kind: type[BaseException], *arguments: Any) -> None:
    """Raise an error with these arguments."""
    raise kind(*arguments)


async def fail_async(kind: type[BaseException], *arguments: Any) -> None:
    """Raise an error after a suspension."""
    await asyncio.sleep(0)
    raise kind(*arguments)


def interrupt(name: str) -> None:
    """Raise one of `INTERRUPTS`."""
    raise INTERRUPTS[name]("mine")


def fail_oddly() -> None:
    """Raise an error that does not unpickle."""
    raise TwoArgumentsError(7, "odd")


def fail_unsendable() -> None:
    """Raise an error that does not pickle."""
    raise UnsendableError


def answer_unsendable(status: int) -> None:
    """Raise an answer that does not unpickle."""
    raise UnsendableAnswerError(status=status)


def return_unsendable() -> Unsendable:
    """Return an object that does not pickle."""
    return Unsendable()


def fail_at_first(log: str, failures: int, *arguments: Any) -> int:
    """Raise an error at the first calls; return the number of calls afterwards.

    Args:
        log: A file with a line for each call.
        failures: The number of calls that fail.
        *arguments: The arguments of an `AnswerError`; none for a `ValueError`.
    """
    add_line(log, "call")
    calls = len(lines(log))
    if calls > failures:
        return calls
    raise AnswerError(*arguments) if arguments else ValueError(f"call {calls}")


def end_worker() -> None:
    """End the process of the worker at once."""
    os._exit(3)


def end_worker_at_first(log: str) -> int:
    """End the process of the worker at the first call; return the number of calls afterwards."""
    add_line(log, "call")
    if len(lines(log)) == 1:
        os._exit(3)
    return len(lines(log))


# Streams.


async def count(number: int, log: str = "") -> AsyncIterator[int | Final[str]]:
    """Yield numbers, and then a final value; append a line before each number, and mark the end."""
    try:
        for value in range(number):
            if log:
                add_line(log, str(value))
            yield value
        yield Final("all")
    finally:
        if log:
            mark(f"{log}.closed")


async def count_plainly(start: int, stop: int) -> AsyncIterator[int]:
    """Yield the numbers of a range."""
    for value in range(start, stop):
        await asyncio.sleep(0)
        yield value


async def yield_then_fail() -> AsyncIterator[int]:
    """Yield two values, and raise an error."""
    yield 0
    yield 1
    raise ValueError("after two values")


async def yield_after_final() -> AsyncIterator[object]:
    """Yield a value after the final one."""
    yield Final("final")
    yield "late"


async def yield_unsendable() -> AsyncIterator[object]:
    """Yield an object that does not pickle."""
    yield 1
    yield Unsendable()


async def fail_after_values_at_first(log: str) -> AsyncIterator[object]:
    """Yield a value and raise an error; at the second call, yield two values and the final one."""
    add_line(log, "call")
    yield "a"
    if len(lines(log)) == 1:
        raise ValueError("at first")
    yield "b"
    yield Final("c")


# Contexts and leases.


def read_context() -> tuple[str, str]:
    """Return the values of the two variables, and change them."""
    found = CARRIED.get(), LEFT.get()
    CARRIED.set("changed")
    LEFT.set("changed")
    return found


def settle(settled: str, amounts: dict[str, float]) -> str:
    """Settle the lease, and mark that."""
    current_lease().settle(**amounts)
    mark(settled)
    return "settled"


def settle_and_wait(settled: str, gate: str, amounts: dict[str, float]) -> bool:
    """Settle the lease, and wait for the gate."""
    current_lease().settle(**amounts)
    return wait(settled, gate)


async def settle_and_wait_async(settled: str, gate: str, amounts: dict[str, float]) -> bool:
    """Settle the lease, and wait for the gate."""
    current_lease().settle(**amounts)
    return await wait_async(settled, gate)


def suspend() -> str:
    """Return the error of suspending the lease."""
    try:
        current_lease().suspended()
    except RuntimeError as error:
        return str(error)
    return "not refused"
