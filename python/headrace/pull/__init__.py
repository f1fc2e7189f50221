"""Pull: lazy streams, from many to one."""

from typing import TYPE_CHECKING

from headrace.lazy import lazily

if TYPE_CHECKING:
    from headrace.pull.base import PullObj
    from headrace.pull.capacity import SourceCapacityObj
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
else:
    # What a checker reads above, for the interpreter: which module has which names.
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "base": "PullObj",
            "capacity": "SourceCapacityObj",
            "eager": "PullEagerObj",
            "gate": "PullGateObj",
            "group": """
                PullBufferObj PullFlatMapObj PullFlattenObj PullSkipObj PullSkipWhileObj PullTakeObj
                PullTakeWhileObj PullWindowObj
            """,
            "labeled": """
                PullLabeledRaceObj PullLabeledRaceRobinObj PullLabeledRoundRobinObj
                PullLabeledZipObj
            """,
            "merge": """
                PullConcatObj PullRaceCutoffObj PullRaceObj PullRaceRobinObj PullRoundRobinObj
                PullZipObj
            """,
            "source": "SourceBufferObj SourceCacheObj SourceIterObj SourceLinesObj SourceObj",
            "time": "PullThrottleObj PullTimeoutObj PullTimerObj PullWindowTimeoutObj",
            "transform": """
                PullCallbackObj PullCatchObj PullDedupeObj PullFilterObj PullInOrderObj PullMapObj
                PullObj1To1Link PullReduceObj
            """,
        },
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
    "SourceCapacityObj",
    "SourceIterObj",
    "SourceLinesObj",
    "SourceObj",
]
