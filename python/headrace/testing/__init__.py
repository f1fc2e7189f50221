"""Tools for testing asynchronous code.

- `VirtualClock`: an event loop whose time jumps to the next timer, so an hour of delays takes no time.
- `DeadlockError`: raised by such a loop when no callback can ever run again.
- `ScriptedSource`: a source that follows a script; `Yields`, `Delay`, `Forever` and `Raise` are its steps.
- `RecordingSink`: a sink that records its items and how it was ended.
- `marbles`: a run of a stream as a text, one character per time frame; `ScriptedSource("a-b--c|")` plays such a text.
- `shuffled_loop`: an event loop that runs ready callbacks in a random order, from a seed.
- `sweep`, `sweep_endings`: interrupt or end a stream at every suspension point, and check its guarantees.
- `cancel_everywhere`: the same for any coroutine, with your own assertions.
- `headrace.testing.executors`: a conformance suite for executors of the task pool.
- `assert_closed`: checks that the sources and sinks at the ends of a pipeline were closed.
"""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.testing._cancel_everywhere import (
        Outcome as Outcome,
        cancel_everywhere as cancel_everywhere,
    )
    from headrace.testing._sweep import (
        Ending as Ending,
        Interruption as Interruption,
        sweep as sweep,
        sweep_endings as sweep_endings,
    )
    from headrace.testing.assertions import assert_closed as assert_closed
    from headrace.testing.fault_injection import SweepError as SweepError
    from headrace.testing.marble import (
        MarbleError as MarbleError,
        marbles as marbles,
    )
    from headrace.testing.recording_sink import RecordingSink as RecordingSink
    from headrace.testing.scripted_source import (
        AtTime as AtTime,
        Delay as Delay,
        Forever as Forever,
        Raise as Raise,
        ScriptedSource as ScriptedSource,
        Step as Step,
        Yields as Yields,
    )
    from headrace.testing.shuffle import shuffled_loop as shuffled_loop
    from headrace.testing.virtual_clock import (
        DeadlockError as DeadlockError,
        VirtualClock as VirtualClock,
    )
else:
    __getattr__, __dir__ = lazy_exports(__name__)
