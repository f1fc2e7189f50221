"""Tasks that depend on each other, and sources that hand them out in order."""

from headrace.graph.graph import DependencyGraph
from headrace.graph.node import DependencyNode, DependencyState
from headrace.graph.outcome_listener import OutcomeListener
from headrace.graph.sources import (
    DependencySourceObj,
    PriorityDependencySourceObj,
    PrioritySourceObj,
)

__all__ = [
    "DependencyGraph",
    "DependencyNode",
    "DependencySourceObj",
    "DependencyState",
    "OutcomeListener",
    "PriorityDependencySourceObj",
    "PrioritySourceObj",
]
