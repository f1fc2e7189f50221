"""Pull: lazy streams, from many to one."""

from headrace.pull.base import PullObj
from headrace.pull.group import (
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
from headrace.pull.source import SourceBufferObj, SourceIterObj, SourceObj
from headrace.pull.transform import (
    PullDedupeObj,
    PullFilterObj,
    PullMapObj,
    PullObj1To1Link,
    PullReduceObj,
)

__all__ = [
    "PullConcatObj",
    "PullDedupeObj",
    "PullFilterObj",
    "PullFlatMapObj",
    "PullFlattenObj",
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
    "PullWindowObj",
    "PullZipObj",
    "SourceBufferObj",
    "SourceIterObj",
    "SourceObj",
]
