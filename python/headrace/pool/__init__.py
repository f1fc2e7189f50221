"""The task pool: work from a stream, run under a tree of capacities, told about in envelopes."""

from headrace.pool.envelope import EnvelopeType, Final, TaskProgressEnvelope
from headrace.pool.executor import Abilities, Cancelling, Executor, Handle, Listener, Stop
from headrace.pool.executor.followed import Followed
from headrace.pool.executor.loop import LoopExecutor
from headrace.pool.executor.thread import ThreadExecutor
from headrace.pool.graph import DependencyGraph
from headrace.pool.lease import current_lease
from headrace.pool.mapped import PullMapPoolObj
from headrace.pool.node import DependencyNode, DependencyState
from headrace.pool.options import RunnerOptions
from headrace.pool.progress import TaskRun
from headrace.pool.retry import Retry
from headrace.pool.runner import HierarchicalTaskPoolRunner
from headrace.pool.settling import Settling
from headrace.pool.snapshot import NodeUse, PoolSnapshot
from headrace.pool.sources import (
    DependencySourceObj,
    PriorityDependencySourceObj,
    PrioritySourceObj,
)
from headrace.pool.task import Task

__all__ = [
    "Abilities",
    "Cancelling",
    "DependencyGraph",
    "DependencyNode",
    "DependencySourceObj",
    "DependencyState",
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
    "PriorityDependencySourceObj",
    "PrioritySourceObj",
    "PullMapPoolObj",
    "Retry",
    "RunnerOptions",
    "Settling",
    "Stop",
    "Task",
    "TaskProgressEnvelope",
    "TaskRun",
    "ThreadExecutor",
    "current_lease",
]
