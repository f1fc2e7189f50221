"""SIGUSR1 and SIGQUIT print what the command waits for. `signals.install` installs it.

A signal handler of Python runs between two bytecodes of the main thread, so it would print nothing while the event loop is blocked in C
code, which is when it is needed most. But the interpreter writes the number of each signal to its wake-up descriptor at once. A thread
reads that descriptor and prints. It needs only the GIL, which all C code that blocks for long releases.

User code may replace the wake-up descriptor, as `loop.add_signal_handler()` does. Then the handler passes the signal on.

This module imports little, so that it is installed before any slow import.
"""

from __future__ import annotations

import _thread
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

NUMBERS = (signal.SIGUSR1, signal.SIGQUIT)


class _Descriptors:
    """The ends of the pipe, which a process has once."""

    reading = -1
    writing = -1


def install() -> None:
    """Install the handlers and start the thread."""
    _Descriptors.reading, _Descriptors.writing = os.pipe()
    os.set_blocking(_Descriptors.writing, False)
    signal.set_wakeup_fd(_Descriptors.writing, warn_on_full_buffer=False)
    for number in NUMBERS:
        # A parent may ignore it on purpose.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    _thread.start_new_thread(_print_for_ever, (_Descriptors.reading,))


def _handle(number: int, _: FrameType | None) -> None:
    current = signal.set_wakeup_fd(_Descriptors.writing, warn_on_full_buffer=False)
    if current != _Descriptors.writing:
        signal.set_wakeup_fd(current)
        os.write(_Descriptors.writing, bytes([number]))


def _print_for_ever(reading: int) -> None:
    while received := os.read(reading, 1):
        if received[0] in NUMBERS:
            _print()


def _print() -> None:
    try:
        # Late: it imports the pool.
        from headrace._explain import explain

        text = explain()
    except Exception as error:
        text = f"headrace map: cannot explain: {error!r}"
    data = f"\n{text}\n".encode(errors="replace")
    try:
        # Not by `sys.stderr`, whose lock the main thread may hold.
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        # A closed or broken standard error changes nothing else.
        return
