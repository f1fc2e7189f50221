"""Tools for tests of asynchronous code: ours and yours.

- `VirtualClock`: an event loop whose time jumps to the next timer, so that an hour of delays takes no time.
- `DeadlockError`: what such a loop raises when nothing could ever happen any more.
- `ScriptedSource`: a source that does what its script says; `Turns`, `Delay`, `Forever` and `Raise` are its steps.
- `RecordingSink`: a sink that notes what is pushed into it, and how it was ended.
- `sweep`, `sweep_endings`: interrupt or end a stream at every place where it waits, and see whether the laws hold.
"""

from headrace.testing.clock import DeadlockError, VirtualClock
from headrace.testing.record import RecordingSink
from headrace.testing.script import Delay, Forever, Raise, ScriptedSource, Step, Turns
from headrace.testing.sweep import Ending, SweepError, Way, sweep, sweep_endings

__all__ = [
    "DeadlockError",
    "Delay",
    "Ending",
    "Forever",
    "Raise",
    "RecordingSink",
    "ScriptedSource",
    "Step",
    "SweepError",
    "Turns",
    "VirtualClock",
    "Way",
    "sweep",
    "sweep_endings",
]
