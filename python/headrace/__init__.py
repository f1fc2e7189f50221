"""headrace: composable streams and fair, tree-shaped limits for asyncio.

Pull streams are lazy and go from many to one; push streams are eager and go from one to many;
`PushPullBufferObj` is the bridge between them; `HierarchicalTaskPoolRunner` runs tasks under a tree
of capacities. The hot parts are Rust.
"""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazily

if TYPE_CHECKING:
    from headrace._core import (
        IteratorResult as IteratorResult,
        __version__ as __version__,
    )
    from headrace._internal.sentinels import *
    from headrace.bridge import *
    from headrace.buffer import PushPullBufferObj as PushPullBufferObj
    from headrace.capacity import (
        Budget as Budget,
        CapacitySnapshot as CapacitySnapshot,
        CapacitySource as CapacitySource,
        HierarchicalBalancer as HierarchicalBalancer,
        Lease as Lease,
        QuotaCapacitySource as QuotaCapacitySource,
        Rate as Rate,
    )
    from headrace.errors import *
    from headrace.graph import *
    from headrace.pool import (
        EnvelopeType as EnvelopeType,
        Final as Final,
        HierarchicalTaskPoolRunner as HierarchicalTaskPoolRunner,
        PoolSnapshot as PoolSnapshot,
        PullMapPoolObj as PullMapPoolObj,
        TaskProgressEnvelope as TaskProgressEnvelope,
    )
    from headrace.pull import *
    from headrace.push import *
    from headrace.signal import *
    from headrace.task import *
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "_core": "IteratorResult __version__",
            "bridge": "PullPushBridgeObj PullPushDistributeObj PushPullObj",
            "buffer": "PushPullBufferObj",
            "capacity": """
                Budget CapacitySnapshot CapacitySource HierarchicalBalancer Lease QuotaCapacitySource
                Rate
            """,
            "errors": """
                BrokenError BudgetExhausted ClosedError CycleError ForkError HeadraceError OrderError
                SourceCancelledError WouldBlock WouldDeadlock WrongLoopError
            """,
            "graph": """
                DependencyGraph DependencyNode DependencySourceObj DependencyState
                PriorityDependencySourceObj PrioritySourceObj OutcomeListener
            """,
            "pool": """
                EnvelopeType Final HierarchicalTaskPoolRunner PoolSnapshot PullMapPoolObj
                TaskProgressEnvelope
            """,
            "task": "Retry Task current_lease",
            "pull": """
                AsyncIteratorCombiner PullBufferObj PullCallbackObj PullCatchObj PullConcatObj PullDedupeObj PullEagerObj
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
            "_internal.sentinels": "SKIP Skip",
        },
    )
