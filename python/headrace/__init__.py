"""headrace: composable streams and fair, tree-shaped limits for asyncio.

Pull streams are lazy and go from many to one; push streams are eager and go from one to many;
`PushPullBufferObj` is the bridge between them; `HierarchicalTaskPoolRunner` runs tasks under a tree
of capacities. The hot parts are Rust.
"""

from headrace._core import IteratorResult, __version__
from headrace.buffer import PushPullBufferObj
from headrace.capacity import CapacitySource, Lease
from headrace.combiner import AsyncIteratorCombiner
from headrace.errors import (
    BrokenError,
    ClosedError,
    ForkError,
    HeadraceError,
    SourceCancelledError,
    WouldBlock,
    WrongLoopError,
)
from headrace.pool import (
    EnvelopeType,
    Final,
    HierarchicalTaskPoolRunner,
    Task,
    TaskProgressEnvelope,
)
from headrace.pull import (
    PullDedupeObj,
    PullEagerObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullReduceObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowObj,
    PullWindowTimeoutObj,
    SourceBufferObj,
    SourceIterObj,
    SourceObj,
)
from headrace.push import (
    PushDedupeObj,
    PushDistributeObj,
    PushFilterObj,
    PushForkObj,
    PushMapObj,
    PushObj,
    PushObj1To1Link,
    PushReduceObj,
    PushSerialObj,
    SinkCollectObj,
    SinkObj,
)
from headrace.signal import WaitObject

__all__ = [
    "AsyncIteratorCombiner",
    "BrokenError",
    "CapacitySource",
    "ClosedError",
    "EnvelopeType",
    "Final",
    "ForkError",
    "HeadraceError",
    "HierarchicalTaskPoolRunner",
    "IteratorResult",
    "Lease",
    "PullDedupeObj",
    "PullEagerObj",
    "PullFilterObj",
    "PullFlatMapObj",
    "PullFlattenObj",
    "PullMapObj",
    "PullObj",
    "PullObj1To1Link",
    "PullReduceObj",
    "PullSkipObj",
    "PullSkipWhileObj",
    "PullTakeObj",
    "PullTakeWhileObj",
    "PullThrottleObj",
    "PullTimeoutObj",
    "PullTimerObj",
    "PullWindowObj",
    "PullWindowTimeoutObj",
    "PushDedupeObj",
    "PushDistributeObj",
    "PushFilterObj",
    "PushForkObj",
    "PushMapObj",
    "PushObj",
    "PushObj1To1Link",
    "PushPullBufferObj",
    "PushReduceObj",
    "PushSerialObj",
    "SinkCollectObj",
    "SinkObj",
    "SourceBufferObj",
    "SourceCancelledError",
    "SourceIterObj",
    "SourceObj",
    "Task",
    "TaskProgressEnvelope",
    "WaitObject",
    "WouldBlock",
    "WrongLoopError",
    "__version__",
]
