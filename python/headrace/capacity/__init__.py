"""Limits in a tree, shared fairly: what runs holds its cost at a node and at everything above it."""

from headrace._core import Lease
from headrace.capacity.balancer import HierarchicalBalancer
from headrace.capacity.limits import Budget, Rate
from headrace.capacity.node import CapacitySource, QuotaCapacitySource, checked_capacity, under
from headrace.capacity.snapshot import CapacitySnapshot

__all__ = [
    "Budget",
    "CapacitySnapshot",
    "CapacitySource",
    "HierarchicalBalancer",
    "Lease",
    "QuotaCapacitySource",
    "Rate",
    "checked_capacity",
    "under",
]
