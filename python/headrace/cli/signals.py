"""SIGINT, SIGTERM and SIGHUP, from the start of the command to the end of its process.

| phase | effect of a signal |
|---|---|
| imports, checks, opening a pipe | the first raises `Interrupted`; the second ends the process at once |
| opening files (`held`) | waits for the next phase |
| the run (`listen`) | goes to the listener |
| the ending: files are brought to disk | goes to the listener, which ignores it: nothing is left to stop |
| after `end` | the second one ends the process at once, with the exit code of the run |
| the last steps of the interpreter | ignored |

So an exception is raised only where nothing is half done, and the process ends early only where every file is either
whole or not begun. This module imports little: it is there before anything that takes time.
"""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal came while nothing was half done. `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code: int = 128 + number


class _Signals:
    """The state of the process: it has one set of signal handlers."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.raises = True
        self.listener: Callable[[int], object] | None = None
        self.code: int | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if self.code is not None:
            if len(self.received) > 1:
                leave(self.code)
        elif self.listener is not None:
            self.listener(number)
        elif self.raises:
            # The first may have been swallowed, for example by a bare `except` in the module of the user.
            if len(self.received) > 1:
                leave(128 + number)
            raise Interrupted(number)


_state = _Signals()


def install() -> None:
    """Handle the signals, for the rest of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _state.handle)
    # `nohup` ignores SIGHUP on purpose.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _state.handle)
    # Registered first, so that it runs after the user's functions. The interpreter keeps `SIG_IGN` to its end,
    # whereas it replaces other handlers by the default, which would change the exit code.
    atexit.unregister(_ignore)
    atexit.register(_ignore)


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held() -> Generator[None]:
    """Raise nothing in this block: a signal waits for `interruptible()` or `listen()`."""
    _state.raises = False
    try:
        yield
    finally:
        _state.raises = True


@contextmanager
def interruptible() -> Generator[None]:
    """Raise `Interrupted` in this part of a held block, which may wait for ever and leaves nothing half done.

    Raises:
        Interrupted: a signal comes, or came before.
    """
    before = _state.raises
    _state.raises = True
    try:
        if _state.received:
            raise Interrupted(_state.received[0])
        yield
    finally:
        _state.raises = before


def listen(listener: Callable[[int], object]) -> None:
    """Call `listener` with each signal, also with those that were held; it runs between any two bytecodes."""
    _state.listener = listener
    for number in tuple(_state.received):
        listener(number)


def end(code: int) -> None:
    """Everything is on disk: from now on a second signal ends the process with this exit code."""
    _state.code = code
    _state.listener = None


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads are doing. Nothing is flushed: that may be what it waits for."""
    os._exit(code)
