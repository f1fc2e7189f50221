"""Tools for tests of asynchronous code: ours and yours.

- `VirtualClock`: an event loop whose time jumps to the next timer, so that an hour of delays takes no time.
- `DeadlockError`: what such a loop raises when nothing could ever happen any more.
- `ScriptedSource`: a source that does what its script says; `Yields`, `Delay`, `Forever` and `Raise` are its steps.
- `RecordingSink`: a sink that notes what is pushed into it, and how it was ended.
- `marbles`: a run of a stream as a line, one character a frame of time; `ScriptedSource("a-b--c|")` plays such a line.
- `shuffled_loop`: an event loop that runs what is ready in a random order, from a seed.
- `sweep`, `sweep_endings`: interrupt or end a stream at every place where it waits, and see whether the laws hold.
- `cancel_everywhere`: the same for any coroutine, and whatever you assert of it.
- `assert_closed`: whether the sources and sinks at the ends of a pipeline were closed.
"""

from headrace.testing._cancel_everywhere import Outcome, cancel_everywhere
from headrace.testing._sweep import Ending, Interruption, sweep, sweep_endings
from headrace.testing.assertions import assert_closed
from headrace.testing.fault_injection import SweepError
from headrace.testing.marble import MarbleError, marbles
from headrace.testing.recording_sink import RecordingSink
from headrace.testing.scripted_source import (
    AtTime,
    Delay,
    Forever,
    Raise,
    ScriptedSource,
    Step,
    Yields,
)
from headrace.testing.shuffle import shuffled_loop
from headrace.testing.virtual_clock import DeadlockError, VirtualClock

__all__ = [
    "AtTime",
    "DeadlockError",
    "Delay",
    "Ending",
    "Forever",
    "Interruption",
    "MarbleError",
    "Outcome",
    "Raise",
    "RecordingSink",
    "ScriptedSource",
    "Step",
    "SweepError",
    "VirtualClock",
    "Yields",
    "assert_closed",
    "cancel_everywhere",
    "marbles",
    "shuffled_loop",
    "sweep",
    "sweep_endings",
]
