"""The task pool: runs tasks from a stream under a tree of capacities, and reports their events in envelopes."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace._core import TaskProgressEnvelope as TaskProgressEnvelope
    from headrace.pool.events import (
        EnvelopeType as EnvelopeType,
        Final as Final,
    )
    from headrace.pool.executor.executor import (
        CancelSupport as CancelSupport,
        Capabilities as Capabilities,
        Executor as Executor,
    )
    from headrace.pool.executor.handle import (
        CancelResult as CancelResult,
        Handle as Handle,
        Listener as Listener,
    )
    from headrace.pool.executor.loop import LoopExecutor as LoopExecutor
    from headrace.pool.executor.process.executor import ProcessExecutor as ProcessExecutor
    from headrace.pool.executor.ray.executor import RayExecutor as RayExecutor
    from headrace.pool.executor.remote import RemoteLease as RemoteLease, carried as carried
    from headrace.pool.executor.submission import Submission as Submission
    from headrace.pool.executor.thread import ThreadExecutor as ThreadExecutor
    from headrace.pool.map_error import Failure as Failure, MapError as MapError
    from headrace.pool.map_pool import PullMapPoolObj as PullMapPoolObj
    from headrace.pool.options import RunnerOptions as RunnerOptions
    from headrace.pool.progress import TaskRun as TaskRun
    from headrace.pool.runner import HierarchicalTaskPoolRunner as HierarchicalTaskPoolRunner
    from headrace.pool.snapshot import (
        NodeUse as NodeUse,
        PoolSnapshot as PoolSnapshot,
    )
else:
    __getattr__, __dir__ = lazy_exports(__name__)
