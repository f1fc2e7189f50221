"""The task pool: work from a stream, run under a tree of capacities, told about in envelopes."""

from typing import TYPE_CHECKING

from headrace.lazy import lazily

if TYPE_CHECKING:
    from headrace.pool.envelope import (
        EnvelopeType as EnvelopeType,
        Final as Final,
        TaskProgressEnvelope as TaskProgressEnvelope,
    )
    from headrace.pool.executor import (
        Abilities as Abilities,
        Cancelling as Cancelling,
        Executor as Executor,
        Handle as Handle,
        Listener as Listener,
        Stop as Stop,
    )
    from headrace.pool.executor.followed import Followed as Followed
    from headrace.pool.executor.loop import LoopExecutor as LoopExecutor
    from headrace.pool.executor.thread import ThreadExecutor as ThreadExecutor
    from headrace.pool.graph import DependencyGraph as DependencyGraph
    from headrace.pool.lease import current_lease as current_lease
    from headrace.pool.mapped import PullMapPoolObj as PullMapPoolObj
    from headrace.pool.node import (
        DependencyNode as DependencyNode,
        DependencyState as DependencyState,
    )
    from headrace.pool.options import RunnerOptions as RunnerOptions
    from headrace.pool.progress import TaskRun as TaskRun
    from headrace.pool.retry import Retry as Retry
    from headrace.pool.runner import HierarchicalTaskPoolRunner as HierarchicalTaskPoolRunner
    from headrace.pool.settling import Settling as Settling
    from headrace.pool.snapshot import NodeUse as NodeUse, PoolSnapshot as PoolSnapshot
    from headrace.pool.sources import (
        DependencySourceObj as DependencySourceObj,
        PriorityDependencySourceObj as PriorityDependencySourceObj,
        PrioritySourceObj as PrioritySourceObj,
    )
    from headrace.pool.task import Task as Task
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "envelope": "EnvelopeType Final TaskProgressEnvelope",
            "executor": "Abilities Cancelling Executor Handle Listener Stop",
            "executor.followed": "Followed",
            "executor.loop": "LoopExecutor",
            "executor.thread": "ThreadExecutor",
            "graph": "DependencyGraph",
            "lease": "current_lease",
            "mapped": "PullMapPoolObj",
            "node": "DependencyNode DependencyState",
            "options": "RunnerOptions",
            "progress": "TaskRun",
            "retry": "Retry",
            "runner": "HierarchicalTaskPoolRunner",
            "settling": "Settling",
            "snapshot": "NodeUse PoolSnapshot",
            "sources": "DependencySourceObj PriorityDependencySourceObj PrioritySourceObj",
            "task": "Task",
        },
    )
