"""`HostConfig`: the options of the hosts of a `RayExecutor`, and `HostAddress`: the way to a host that has started."""

from __future__ import annotations

from dataclasses import dataclass

START_UP = 60.0
"""The seconds within which the driver must have connected to a host that has started."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The options of a host. All but the first are the same for all hosts of an executor."""

    workers: int
    """The number of worker processes."""
    prefetch: int
    """The number of tasks that wait at a worker."""
    window: int
    """The maximum number of values that a task has yielded and the driver has not read."""
    tasks_per_worker: int
    """The maximum number of tasks that run at the same time in a worker."""
    grace: float | None
    """The seconds for which a cancelled async function may clean up."""
    kill: bool
    """Whether a worker that runs other tasks is killed after `grace`."""
    carry: tuple[tuple[str, str], ...]
    """The names of the context variables that travel."""
    fence: float
    """The seconds without a sign of the driver after which the host ends its work."""
    linger: float
    """The maximum seconds for which messages to the driver wait for others."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """The way to a host."""

    ip: str
    """The address of its node."""
    port: int
    """The TCP port for tasks and outcomes."""
    watchdog_port: int
    """The TCP port of the watchdog."""
    token: bytes
    """A secret that the driver sends first on both connections."""
    pid: int
    """The process of the actor."""
