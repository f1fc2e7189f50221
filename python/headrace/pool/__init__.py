"""The task pool: work from a stream, run under a tree of capacities, told about in envelopes."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazily

if TYPE_CHECKING:
    from headrace.pool.events import (
        EnvelopeType as EnvelopeType,
        Final as Final,
        TaskProgressEnvelope as TaskProgressEnvelope,
    )
    from headrace.pool.executor import (
        CancelResult as CancelResult,
        CancelSupport as CancelSupport,
        Capabilities as Capabilities,
        Executor as Executor,
        Handle as Handle,
        Listener as Listener,
    )
    from headrace.pool.executor.loop import LoopExecutor as LoopExecutor
    from headrace.pool.executor.submission import Submission as Submission
    from headrace.pool.executor.thread import ThreadExecutor as ThreadExecutor
    from headrace.pool.map_pool import PullMapPoolObj as PullMapPoolObj
    from headrace.pool.options import RunnerOptions as RunnerOptions
    from headrace.pool.progress import TaskRun as TaskRun
    from headrace.pool.runner import HierarchicalTaskPoolRunner as HierarchicalTaskPoolRunner
    from headrace.pool.snapshot import NodeUse as NodeUse, PoolSnapshot as PoolSnapshot
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "events": "EnvelopeType Final TaskProgressEnvelope",
            "executor": "CancelResult CancelSupport Capabilities Executor Handle Listener",
            "executor.submission": "Submission",
            "executor.loop": "LoopExecutor",
            "executor.thread": "ThreadExecutor",
            "map_pool": "PullMapPoolObj",
            "options": "RunnerOptions",
            "progress": "TaskRun",
            "runner": "HierarchicalTaskPoolRunner",
            "snapshot": "NodeUse PoolSnapshot",
        },
    )
