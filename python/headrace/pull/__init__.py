"""Pull: lazy streams, from many to one."""

from headrace.pull.base import PullObj
from headrace.pull.eager import PullEagerObj
from headrace.pull.group import (
    PullFlatMapObj,
    PullFlattenObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullWindowObj,
)
from headrace.pull.source import SourceBufferObj, SourceIterObj, SourceObj
from headrace.pull.time import (
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowTimeoutObj,
)
from headrace.pull.transform import (
    PullDedupeObj,
    PullFilterObj,
    PullMapObj,
    PullObj1To1Link,
    PullReduceObj,
)

__all__ = [
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
    "SourceBufferObj",
    "SourceIterObj",
    "SourceObj",
]
