"""Tools for tests of asynchronous code: ours and yours.

- `VirtualClock`: an event loop whose time jumps to the next timer, so that an hour of delays takes no time.
- `DeadlockError`: what such a loop raises when nothing could ever happen any more.
"""

from headrace.testing.clock import DeadlockError, VirtualClock

__all__ = ["DeadlockError", "VirtualClock"]
