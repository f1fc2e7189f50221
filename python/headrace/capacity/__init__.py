"""A tree of limits, shared fairly: a lease holds its cost at a node and at every ancestor of the node."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace._core import Lease as Lease
    from headrace.capacity.balancer import HierarchicalBalancer as HierarchicalBalancer
    from headrace.capacity.breaker import Breaker as Breaker, BreakerState as BreakerState
    from headrace.capacity.limits import (
        AdaptiveLimit as AdaptiveLimit,
        Budget as Budget,
        Rate as Rate,
    )
    from headrace.capacity.node import (
        CapacitySource as CapacitySource,
        QuotaCapacitySource as QuotaCapacitySource,
    )
    from headrace.capacity.snapshot import (
        CapacitySnapshot as CapacitySnapshot,
        Cooldown as Cooldown,
    )
else:
    __getattr__, __dir__ = lazy_exports(__name__)
