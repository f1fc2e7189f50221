"""`HostPlacement`: decides which host of a `RayExecutor` gets a task: the one with the fewest tasks for its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.pool.executor.process.placement import Placement

if TYPE_CHECKING:
    from headrace.pool.executor.ray.host import Host


class HostPlacement(Placement["Host"]):
    """The tasks and the hosts of an executor."""

    @property
    def slots(self) -> int:
        """The number of tasks that the hosts take together. A host that takes no more tasks counts with those that it still has."""
        return sum(host.slots if host.can_run else len(host.works) for host in self.workers)

    def _choose(self) -> Host | None:
        best, least = None, 1.0
        for host in self.workers:
            if host.can_run and (load := len(host.works) / host.slots) < least:
                best, least = host, load
        return best
