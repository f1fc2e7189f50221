"""headrace: composable streams and fair, tree-shaped limits for asyncio.

Pull streams are lazy and go from many to one; push streams are eager and go from one to many;
`PushPullBufferObj` is the bridge between them; `HierarchicalTaskPoolRunner` runs tasks under a tree
of capacities. The hot parts are Rust.
"""

from typing import TYPE_CHECKING

from headrace.lazy import lazily

if TYPE_CHECKING:
    from headrace._core import IteratorResult, __version__
    from headrace.bridge import PullPushBridgeObj, PullPushDistributeObj, PushPullObj
    from headrace.buffer import PushPullBufferObj
    from headrace.capacity import (
        Budget,
        CapacitySnapshot,
        CapacitySource,
        HierarchicalBalancer,
        Lease,
        QuotaCapacitySource,
        Rate,
    )
    from headrace.combiner import AsyncIteratorCombiner
    from headrace.errors import (
        BrokenError,
        BudgetExhausted,
        ClosedError,
        CycleError,
        ForkError,
        HeadraceError,
        OrderError,
        SourceCancelledError,
        WouldBlock,
        WouldDeadlock,
        WrongLoopError,
    )
    from headrace.pool import (
        DependencyGraph,
        DependencyNode,
        DependencySourceObj,
        DependencyState,
        EnvelopeType,
        Final,
        HierarchicalTaskPoolRunner,
        PoolSnapshot,
        PriorityDependencySourceObj,
        PrioritySourceObj,
        Retry,
        Settling,
        Task,
        TaskProgressEnvelope,
        current_lease,
    )
    from headrace.pull import (
        PullBufferObj,
        PullCallbackObj,
        PullCatchObj,
        PullConcatObj,
        PullDedupeObj,
        PullEagerObj,
        PullFilterObj,
        PullFlatMapObj,
        PullFlattenObj,
        PullGateObj,
        PullInOrderObj,
        PullLabeledRaceObj,
        PullLabeledRaceRobinObj,
        PullLabeledRoundRobinObj,
        PullLabeledZipObj,
        PullMapObj,
        PullObj,
        PullObj1To1Link,
        PullRaceCutoffObj,
        PullRaceObj,
        PullRaceRobinObj,
        PullReduceObj,
        PullRoundRobinObj,
        PullSkipObj,
        PullSkipWhileObj,
        PullTakeObj,
        PullTakeWhileObj,
        PullThrottleObj,
        PullTimeoutObj,
        PullTimerObj,
        PullWindowObj,
        PullWindowTimeoutObj,
        PullZipObj,
        SourceBufferObj,
        SourceCacheObj,
        SourceCapacityObj,
        SourceIterObj,
        SourceLinesObj,
        SourceObj,
    )
    from headrace.push import (
        PushBufferObj,
        PushCallbackObj,
        PushChain,
        PushDedupeObj,
        PushDistributeObj,
        PushFilterObj,
        PushFlatMapObj,
        PushFlattenObj,
        PushForkObj,
        PushLabeledDistributeObj,
        PushMapObj,
        PushObj,
        PushObj1To1Link,
        PushReduceObj,
        PushRoundRobinObj,
        PushSerialObj,
        PushSignalObj,
        PushTakeObj,
        PushWindowObj,
        PushWindowTimeoutObj,
        SinkCallbackObj,
        SinkCapacityObj,
        SinkCollectObj,
        SinkNullObj,
        SinkObj,
        SinkWriterObj,
    )
    from headrace.signal import WaitObject
    from headrace.skip import SKIP, Skip
else:
    # What a checker reads above, for the interpreter: which module has which names.
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "_core": "IteratorResult __version__",
            "bridge": "PullPushBridgeObj PullPushDistributeObj PushPullObj",
            "buffer": "PushPullBufferObj",
            "capacity": """
                Budget CapacitySnapshot CapacitySource HierarchicalBalancer Lease QuotaCapacitySource
                Rate
            """,
            "combiner": "AsyncIteratorCombiner",
            "errors": """
                BrokenError BudgetExhausted ClosedError CycleError ForkError HeadraceError OrderError
                SourceCancelledError WouldBlock WouldDeadlock WrongLoopError
            """,
            "pool": """
                DependencyGraph DependencyNode DependencySourceObj DependencyState EnvelopeType Final
                HierarchicalTaskPoolRunner PoolSnapshot PriorityDependencySourceObj PrioritySourceObj
                Retry Settling Task TaskProgressEnvelope current_lease
            """,
            "pull": """
                PullBufferObj PullCallbackObj PullCatchObj PullConcatObj PullDedupeObj PullEagerObj
                PullFilterObj PullFlatMapObj PullFlattenObj PullGateObj PullInOrderObj
                PullLabeledRaceObj PullLabeledRaceRobinObj PullLabeledRoundRobinObj
                PullLabeledZipObj PullMapObj PullObj PullObj1To1Link PullRaceCutoffObj PullRaceObj
                PullRaceRobinObj PullReduceObj PullRoundRobinObj PullSkipObj PullSkipWhileObj
                PullTakeObj PullTakeWhileObj PullThrottleObj PullTimeoutObj PullTimerObj
                PullWindowObj PullWindowTimeoutObj PullZipObj SourceBufferObj SourceCacheObj
                SourceCapacityObj SourceIterObj SourceLinesObj SourceObj
            """,
            "push": """
                PushBufferObj PushCallbackObj PushChain PushDedupeObj PushDistributeObj
                PushFilterObj PushFlatMapObj PushFlattenObj PushForkObj PushLabeledDistributeObj
                PushMapObj PushObj PushObj1To1Link PushReduceObj PushRoundRobinObj PushSerialObj
                PushSignalObj PushTakeObj PushWindowObj PushWindowTimeoutObj SinkCallbackObj
                SinkCapacityObj SinkCollectObj SinkNullObj SinkObj SinkWriterObj
            """,
            "signal": "WaitObject",
            "skip": "SKIP Skip",
        },
    )


__all__ = [
    "SKIP",
    "AsyncIteratorCombiner",
    "BrokenError",
    "Budget",
    "BudgetExhausted",
    "CapacitySnapshot",
    "CapacitySource",
    "ClosedError",
    "CycleError",
    "DependencyGraph",
    "DependencyNode",
    "DependencySourceObj",
    "DependencyState",
    "EnvelopeType",
    "Final",
    "ForkError",
    "HeadraceError",
    "HierarchicalBalancer",
    "HierarchicalTaskPoolRunner",
    "IteratorResult",
    "Lease",
    "OrderError",
    "PoolSnapshot",
    "PriorityDependencySourceObj",
    "PrioritySourceObj",
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
    "PullPushBridgeObj",
    "PullPushDistributeObj",
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
    "PushBufferObj",
    "PushCallbackObj",
    "PushChain",
    "PushDedupeObj",
    "PushDistributeObj",
    "PushFilterObj",
    "PushFlatMapObj",
    "PushFlattenObj",
    "PushForkObj",
    "PushLabeledDistributeObj",
    "PushMapObj",
    "PushObj",
    "PushObj1To1Link",
    "PushPullBufferObj",
    "PushPullObj",
    "PushReduceObj",
    "PushRoundRobinObj",
    "PushSerialObj",
    "PushSignalObj",
    "PushTakeObj",
    "PushWindowObj",
    "PushWindowTimeoutObj",
    "QuotaCapacitySource",
    "Rate",
    "Retry",
    "Settling",
    "SinkCallbackObj",
    "SinkCapacityObj",
    "SinkCollectObj",
    "SinkNullObj",
    "SinkObj",
    "SinkWriterObj",
    "Skip",
    "SourceBufferObj",
    "SourceCacheObj",
    "SourceCancelledError",
    "SourceCapacityObj",
    "SourceIterObj",
    "SourceLinesObj",
    "SourceObj",
    "Task",
    "TaskProgressEnvelope",
    "WaitObject",
    "WouldBlock",
    "WouldDeadlock",
    "WrongLoopError",
    "__version__",
    "current_lease",
]
