"""headrace: composable streams and fair, tree-shaped limits for asyncio.

Pull streams are lazy and go from many to one; push streams are eager and go from one to many;
`PushPullBufferObj` is the bridge between them; `HierarchicalTaskPoolRunner` runs tasks under a tree
of capacities. The hot parts are Rust.
"""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    # First, since packages are searched in this order, and most programs begin with these names.
    from headrace.pull import *
    from headrace.push import *

    # isort: split
    from headrace._core import IteratorResult as IteratorResult, __version__ as __version__
    from headrace._explain import explain as explain
    from headrace._front import amap as amap, map as map
    from headrace._internal.sentinels import SKIP as SKIP, Skip as Skip
    from headrace.bridge import (
        PullPushBridgeObj as PullPushBridgeObj,
        PullPushDistributeObj as PullPushDistributeObj,
        PushPullObj as PushPullObj,
    )
    from headrace.buffer import PushPullBufferObj as PushPullBufferObj
    from headrace.cache import *
    from headrace.capacity import *
    from headrace.errors import (
        BrokenError as BrokenError,
        BudgetExhausted as BudgetExhausted,
        ClosedError as ClosedError,
        CycleError as CycleError,
        DeadlockWarning as DeadlockWarning,
        ForkError as ForkError,
        HeadraceError as HeadraceError,
        JournalError as JournalError,
        JournalStopped as JournalStopped,
        JournalWarning as JournalWarning,
        NotSendable as NotSendable,
        OrderError as OrderError,
        RecordedError as RecordedError,
        RemoteError as RemoteError,
        RunStopped as RunStopped,
        SourceCancelledError as SourceCancelledError,
        StallWarning as StallWarning,
        StoreError as StoreError,
        ThrottledError as ThrottledError,
        WorkerLost as WorkerLost,
        WouldBlock as WouldBlock,
        WouldDeadlock as WouldDeadlock,
        WrongLoopError as WrongLoopError,
    )
    from headrace.graph import *
    from headrace.journal import (
        Journal as Journal,
        PullJournalObj as PullJournalObj,
        SinkJournal as SinkJournal,
    )
    from headrace.pool import (
        EnvelopeType as EnvelopeType,
        Failure as Failure,
        Final as Final,
        HierarchicalTaskPoolRunner as HierarchicalTaskPoolRunner,
        MapError as MapError,
        PoolSnapshot as PoolSnapshot,
        ProcessExecutor as ProcessExecutor,
        PullMapPoolObj as PullMapPoolObj,
        RayExecutor as RayExecutor,
        TaskProgressEnvelope as TaskProgressEnvelope,
    )
    from headrace.signal import WaitObject as WaitObject
    from headrace.task import *
else:
    # A star import must not replace the builtin.
    __getattr__, __dir__ = lazy_exports(__name__, unlisted=("map",))
