"""Tasks that worker processes import by name, with files as their gates."""

# ruff: noqa: ASYNC110, ASYNC240 (the gates of tasks in other processes are files)
from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import current_lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

tenant: ContextVar[str] = ContextVar("tenant", default="none")

DEADLINE = 60.0
"""The seconds after which a task that waits for a file fails, so that no test hangs."""


def is_alive(pid: int) -> bool:
    """Return whether a process can still run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def announce(path: Path, text: str) -> None:
    """Create a file that has its text as soon as it exists."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def double(number: int) -> int:
    return 2 * number


def same(value: Any) -> Any:
    return value


def process_id() -> int:
    return os.getpid()


async def async_process_id() -> int:
    return os.getpid()


def getpid_of(item: object) -> int:
    del item
    return os.getpid()


async def async_getpid_of(item: object) -> int:
    del item
    return os.getpid()


def note_process(directory: Path, number: int) -> int:
    """Note that a task has begun, and return its number."""
    with (directory / f"begun {number}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return number


def wait_for(path: Path) -> int:
    """Wait in the main thread until a file exists; return the process."""
    announce(path.with_suffix(".waiting"), str(os.getpid()))
    limit = time.monotonic() + DEADLINE
    while not path.exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"{path} does not exist")
        time.sleep(0.002)
    return os.getpid()


async def wait_for_async(path: Path) -> int:
    announce(path.with_suffix(".waiting"), str(os.getpid()))
    async with asyncio.timeout(DEADLINE):
        while not path.exists():
            await asyncio.sleep(0.002)
    return os.getpid()


async def refuse_to_end(path: Path) -> None:
    """Ignore cancellations until a file exists."""
    while not path.exists():
        try:
            await wait_for_async(path)
        except asyncio.CancelledError:
            path.with_suffix(".cancelled").touch()


def start_child_and_wait(path: Path) -> None:
    """Start a process that does not end by itself, and wait."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({DEADLINE})"])
    announce(path.with_suffix(".child"), str(child.pid))
    wait_for(path)


def exit_process(code: int) -> None:
    os._exit(code)


def raise_exit() -> None:
    raise SystemExit(3)


async def count(number: int) -> AsyncIterator[int]:
    for value in range(number):
        yield value


async def count_slowly(path: Path, number: int) -> AsyncIterator[int]:
    """Yield numbers, and wait for a file after the first one."""
    for value in range(number):
        yield value
        if value == 0:
            await wait_for_async(path)


async def count_produced(path: Path) -> AsyncIterator[int]:
    """Yield numbers, and write down how many were produced."""
    for value in range(1_000):
        path.write_text(str(value + 1))
        yield value


def settle(tokens: float) -> None:
    current_lease().settle(tokens=tokens)


def suspend() -> None:
    current_lease().suspended()


def read_tenant() -> str:
    return tenant.get()


def unpicklable() -> object:
    return threading.Lock()


async def yield_unpicklable() -> AsyncIterator[object]:
    yield threading.Lock()


class AwkwardError(Exception):
    """An error that can be pickled and not unpickled."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


def raise_awkward() -> None:
    raise AwkwardError(7, "no")


def raise_value_error(text: str) -> None:
    raise ValueError(text)


def raise_this(error: BaseException) -> None:
    raise error


class Unreadable:
    """A value that cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("cannot be read")


def unreadable() -> object:
    return Unreadable()


# Calls that note their times, for `sharing_runs.py`.


class Throttled(Exception):
    """An answer of a server that accepts no call for a while."""

    status_code = 429

    def __init__(self, delay: str) -> None:
        super().__init__(delay)
        self.headers = {"retry-after": delay}


def note(log: Path, line: str) -> None:
    """Append a line to a file, in one write."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


async def note_call(log: Path, tenant: str, seconds: float) -> None:
    """Note the begin and the end of a call."""
    note(log, f"+ {tenant} {time.monotonic()}")
    await asyncio.sleep(seconds)
    note(log, f"- {tenant} {time.monotonic()}")


async def fail_once(log: Path, tenant: str, seconds: float, number: int) -> None:
    """Raise an error after the first call of a number."""
    await note_call(log, tenant, seconds)
    failed = log.with_suffix(f".{number}")
    if not failed.exists():
        failed.touch()
        raise OSError(number)


async def throttle_once(log: Path, tenant: str, delay: str) -> None:
    """Answer 429 to the first call."""
    answered = log.with_suffix(".answered")
    if not answered.exists():
        answered.touch()
        raise Throttled(delay)
    await note_call(log, tenant, 0.001)
