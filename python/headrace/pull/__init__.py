"""Pull: lazy streams, from many to one."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazily

if TYPE_CHECKING:
    from headrace.pull.base import *
    from headrace.pull.batching import *
    from headrace.pull.combiner import AsyncIteratorCombiner as AsyncIteratorCombiner
    from headrace.pull.gate import *
    from headrace.pull.labeled import (
        PullLabeledRaceObj as PullLabeledRaceObj,
        PullLabeledRaceRobinObj as PullLabeledRaceRobinObj,
        PullLabeledRoundRobinObj as PullLabeledRoundRobinObj,
        PullLabeledZipObj as PullLabeledZipObj,
    )
    from headrace.pull.limit import *
    from headrace.pull.merge import (
        PullConcatObj as PullConcatObj,
        PullRaceCutoffObj as PullRaceCutoffObj,
        PullRaceObj as PullRaceObj,
        PullRaceRobinObj as PullRaceRobinObj,
        PullRoundRobinObj as PullRoundRobinObj,
        PullZipObj as PullZipObj,
    )
    from headrace.pull.prefetch import *
    from headrace.pull.source import (
        SourceBufferObj as SourceBufferObj,
        SourceCacheObj as SourceCacheObj,
        SourceIterObj as SourceIterObj,
        SourceLinesObj as SourceLinesObj,
        SourceObj as SourceObj,
    )
    from headrace.pull.timing import *
    from headrace.pull.transform import *
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "base": "PullObj",
            "combiner": "AsyncIteratorCombiner",
            "limit": "SourceCapacityObj",
            "prefetch": "PullEagerObj",
            "gate": "PullGateObj",
            "batching": """
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
            "timing": "PullThrottleObj PullTimeoutObj PullTimerObj PullWindowTimeoutObj",
            "transform": """
                PullCallbackObj PullCatchObj PullDedupeObj PullFilterObj PullInOrderObj PullMapObj
                PullObj1To1Link PullReduceObj
            """,
        },
    )
