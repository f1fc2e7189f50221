"""Pull: lazy streams, from many to one."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.pull.base import PullObj as PullObj
    from headrace.pull.batching import (
        PullBufferObj as PullBufferObj,
        PullWindowObj as PullWindowObj,
    )
    from headrace.pull.combiner import AsyncIteratorCombiner as AsyncIteratorCombiner
    from headrace.pull.flattening import (
        PullFlatMapObj as PullFlatMapObj,
        PullFlattenObj as PullFlattenObj,
    )
    from headrace.pull.gate import PullGateObj as PullGateObj
    from headrace.pull.labeled import (
        PullLabeledRaceObj as PullLabeledRaceObj,
        PullLabeledRaceRobinObj as PullLabeledRaceRobinObj,
        PullLabeledRoundRobinObj as PullLabeledRoundRobinObj,
        PullLabeledZipObj as PullLabeledZipObj,
    )
    from headrace.pull.limit import SourceCapacityObj as SourceCapacityObj
    from headrace.pull.merge import (
        PullConcatObj as PullConcatObj,
        PullRaceCutoffObj as PullRaceCutoffObj,
        PullRaceObj as PullRaceObj,
        PullRaceRobinObj as PullRaceRobinObj,
        PullRoundRobinObj as PullRoundRobinObj,
        PullZipObj as PullZipObj,
    )
    from headrace.pull.prefetch import PullEagerObj as PullEagerObj
    from headrace.pull.slicing import (
        PullSkipObj as PullSkipObj,
        PullSkipWhileObj as PullSkipWhileObj,
        PullTakeObj as PullTakeObj,
        PullTakeWhileObj as PullTakeWhileObj,
    )
    from headrace.pull.source import (
        SourceBufferObj as SourceBufferObj,
        SourceCacheObj as SourceCacheObj,
        SourceIterObj as SourceIterObj,
        SourceLinesObj as SourceLinesObj,
        SourceObj as SourceObj,
    )
    from headrace.pull.timing import (
        PullThrottleObj as PullThrottleObj,
        PullTimeoutObj as PullTimeoutObj,
        PullTimerObj as PullTimerObj,
        PullWindowTimeoutObj as PullWindowTimeoutObj,
    )
    from headrace.pull.transform import (
        PullCallbackObj as PullCallbackObj,
        PullCatchObj as PullCatchObj,
        PullDedupeObj as PullDedupeObj,
        PullFilterObj as PullFilterObj,
        PullInOrderObj as PullInOrderObj,
        PullMapObj as PullMapObj,
        PullObj1To1Link as PullObj1To1Link,
        PullReduceObj as PullReduceObj,
    )
else:
    __getattr__, __dir__ = lazy_exports(__name__)
