"""The task pool: work from a stream, run under a tree of capacities, told about in envelopes."""

from headrace.pool.events import EnvelopeType, Final, TaskProgressEnvelope
from headrace.pool.executor import (
    CancelResult,
    CancelSupport,
    Capabilities,
    Executor,
    Handle,
    Listener,
)
from headrace.pool.executor.loop import LoopExecutor
from headrace.pool.executor.submission import Submission
from headrace.pool.executor.thread import ThreadExecutor
from headrace.pool.map_pool import PullMapPoolObj
from headrace.pool.options import RunnerOptions
from headrace.pool.progress import TaskRun
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pool.snapshot import NodeUse, PoolSnapshot

__all__ = [
    "CancelResult",
    "CancelSupport",
    "Capabilities",
    "EnvelopeType",
    "Executor",
    "Final",
    "Handle",
    "HierarchicalTaskPoolRunner",
    "Listener",
    "LoopExecutor",
    "NodeUse",
    "PoolSnapshot",
    "PullMapPoolObj",
    "RunnerOptions",
    "Submission",
    "TaskProgressEnvelope",
    "TaskRun",
    "ThreadExecutor",
]
