"""Pull: lazy streams, from many to one."""

from headrace.pull.base import PullObj
from headrace.pull.eager import PullEagerObj
from headrace.pull.gate import PullGateObj
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
from headrace.pull.labeled import (
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
)
from headrace.pull.merge import (
    PullConcatObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullZipObj,
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
    "PullConcatObj",
    "PullDedupeObj",
    "PullEagerObj",
    "PullFilterObj",
    "PullFlatMapObj",
    "PullFlattenObj",
    "PullGateObj",
    "PullInOrderObj",
    "PullLabeledRaceObj",
    "PullLabeledRaceRobinObj",
    "PullLabeledRoundRobinObj",
    "PullLabeledZipObj",
    "PullMapObj",
    "PullObj",
    "PullObj1To1Link",
    "PullRaceCutoffObj",
    "PullRaceObj",
    "PullRaceRobinObj",
    "PullReduceObj",
    "PullRoundRobinObj",
    "PullSkipObj",
    "PullSkipWhileObj",
    "PullTakeObj",
    "PullTakeWhileObj",
    "PullThrottleObj",
    "PullTimeoutObj",
    "PullTimerObj",
    "PullWindowObj",
    "PullWindowTimeoutObj",
    "PullZipObj",
    "SourceBufferObj",
    "SourceCacheObj",
    "SourceIterObj",
    "SourceLinesObj",
    "SourceObj",
]
