"""The types that a checker infers for capacities, without annotations by the user. Checked, never run."""

from __future__ import annotations

import time
from typing import assert_type

from headrace import (
    AdaptiveLimit,
    Budget,
    CapacitySnapshot,
    CapacitySource,
    HierarchicalBalancer,
    Lease,
    PushChain,
    PushObj,
    QuotaCapacitySource,
    Rate,
    SinkCapacityObj,
    SinkCollectObj,
    SourceCapacityObj,
    SourceIterObj,
)


async def leases() -> None:
    """Every acquire method returns a lease."""
    capacity = CapacitySource(1)
    assert_type(await capacity.acquire(), Lease)
    assert_type(await capacity.acquire({"slots": 1, "tokens": 0.5}, priority=1, timeout=2), Lease)
    assert_type(capacity.acquire_nowait(), Lease | None)
    assert_type(capacity.acquire_sync(timeout=1), Lease)
    async with capacity.acquire() as lease:
        assert_type(lease, Lease)
        lease.settle(tokens=812, dollars=0.02)
        async with lease.suspended():
            pass
    with lease as same:
        assert_type(same, Lease)
    assert_type(lease.cost, dict[str, float])


def trees() -> None:
    """Limits of every kind."""
    root = CapacitySource(64, name="machine", clock=time.monotonic)
    CapacitySource(Rate(500), root, weight=2.5)
    CapacitySource(AdaptiveLimit(10, 1, 100), root)
    CapacitySource({"slots": 1, "tokens": Rate(90_000, per=60), "dollars": Budget(5)}, root)
    QuotaCapacitySource({"tokens": Rate(90_000), "dollars": Budget(5)}, root)
    assert_type(root.children, tuple[CapacitySource, ...])
    assert_type(root.parent, CapacitySource | None)
    assert_type(root.snapshot(), CapacitySnapshot)
    assert_type([one.waiting for one in root.snapshot()], list[int])
    assert_type(root.utilization, float)
    HierarchicalBalancer({root: (1, 2.5)})


def pipelines() -> None:
    """A limit changes no types."""
    capacity = CapacitySource(1)
    assert_type(SourceIterObj([1]).limit(capacity), SourceCapacityObj[int])
    assert_type(SourceCapacityObj(["a"], capacity), SourceCapacityObj[str])
    assert_type(SinkCapacityObj(SinkCollectObj[int](), capacity), SinkCapacityObj[int])
    chain = PushChain.start(int).limit(capacity, cost={"tokens": 5}).map(str)
    assert_type(chain.into(SinkCollectObj[str]()), PushObj[int])
