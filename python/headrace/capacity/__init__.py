"""Limits in a tree, shared fairly: what runs holds its cost at a node and at everything above it."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazily

if TYPE_CHECKING:
    from headrace._core import Lease as Lease
    from headrace.capacity.balancer import HierarchicalBalancer as HierarchicalBalancer
    from headrace.capacity.limits import Budget as Budget, Rate as Rate
    from headrace.capacity.node import (
        CapacitySource as CapacitySource,
        QuotaCapacitySource as QuotaCapacitySource,
        checked_capacity as checked_capacity,
        under as under,
    )
    from headrace.capacity.snapshot import CapacitySnapshot as CapacitySnapshot
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "balancer": "HierarchicalBalancer",
            "limits": "Budget Rate",
            "snapshot": "CapacitySnapshot",
            "node": "CapacitySource Lease QuotaCapacitySource checked_capacity under",
        },
    )
