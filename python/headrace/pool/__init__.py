"""The task pool: work from a stream, run under a tree of capacities, told about in envelopes."""

from headrace.pool.events import EnvelopeType, Final, TaskProgressEnvelope
from headrace.pool.executor.executor import Abilities, Cancelling, Executor
from headrace.pool.executor.handle import Handle, Listener, Stop
from headrace.pool.executor.loop import LoopExecutor
from headrace.pool.executor.submission import Followed
from headrace.pool.executor.thread import ThreadExecutor
from headrace.pool.map_pool import PullMapPoolObj
from headrace.pool.options import RunnerOptions
from headrace.pool.progress import TaskRun
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pool.snapshot import NodeUse, PoolSnapshot

__all__ = [
    "Abilities",
    "Cancelling",
    "EnvelopeType",
    "Executor",
    "Final",
    "Followed",
    "Handle",
    "HierarchicalTaskPoolRunner",
    "Listener",
    "LoopExecutor",
    "NodeUse",
    "PoolSnapshot",
    "PullMapPoolObj",
    "RunnerOptions",
    "Stop",
    "TaskProgressEnvelope",
    "TaskRun",
    "ThreadExecutor",
]
