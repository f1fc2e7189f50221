"""Pull: lazy streams, from many to one."""

from headrace.pull.base import PullObj
from headrace.pull.eager import PullEagerObj
from headrace.pull.group import (
    PullBufferObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullWindowObj,
)
from headrace.pull.source import (
    SourceBufferObj,
    SourceCacheObj,
    SourceIterObj,
    SourceLinesObj,
    SourceObj,
)
from headrace.pull.time import (
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowTimeoutObj,
)
from headrace.pull.transform import (
    PullCallbackObj,
    PullCatchObj,
    PullDedupeObj,
    PullFilterObj,
    PullInOrderObj,
    PullMapObj,
    PullObj1To1Link,
    PullReduceObj,
)

__all__ = [
    "PullBufferObj",
    "PullCallbackObj",
    "PullCatchObj",
    "PullDedupeObj",
    "PullEagerObj",
    "PullFilterObj",
    "PullFlatMapObj",
    "PullFlattenObj",
    "PullInOrderObj",
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
    "SourceBufferObj",
    "SourceCacheObj",
    "SourceIterObj",
    "SourceLinesObj",
    "SourceObj",
]
