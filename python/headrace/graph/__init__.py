"""Dependency graphs of tasks, and sources that yield ready tasks in order."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.graph.graph import DependencyGraph as DependencyGraph
    from headrace.graph.node import (
        DependencyNode as DependencyNode,
        DependencyState as DependencyState,
    )
    from headrace.graph.outcome_listener import OutcomeListener as OutcomeListener
    from headrace.graph.sources import (
        DependencySourceObj as DependencySourceObj,
        PriorityDependencySourceObj as PriorityDependencySourceObj,
        PrioritySourceObj as PrioritySourceObj,
    )
else:
    __getattr__, __dir__ = lazy_exports(__name__)
