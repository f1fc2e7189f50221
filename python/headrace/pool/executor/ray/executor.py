"""`RayExecutor`: runs tasks in worker processes on all nodes of a Ray cluster.

**Ray places, and carries nothing.** A call of Ray costs a driver about 0.6 ms, and its answers confirm no end: after `ray.kill` has
returned the process still runs, `ray.cancel` lets a plain function run to its end, and a node that the network has cut off works on for
a minute after Ray has declared it dead. So Ray starts one actor on each node (`host_actor.py`), and tasks and outcomes travel through a
TCP connection (`link.py`). The actor runs the same pool of processes as a `ProcessExecutor`, whose guarantees hold on each node.

**Fencing.** The end of work is reported when it is certain. Beside each host runs a watchdog (`watchdog.py`), a process that ends all work
of the host when the driver has been silent for `fence` seconds. The driver waits longer than that before it reports that the work has
ended (`host.py` has the states). Both sides count on their own clocks, from stamps of the watchdog: a delayed message prolongs nothing.

**The end of the driver** closes the connections, by `kill -9` too. The hosts end their work at once, and do not wait for the fence.
"""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from headrace._internal.reprs import pluralize
from headrace._internal.validate import check_flag, check_int, check_seconds, check_size
from headrace.errors import WorkerLost, WrongLoopError
from headrace.pool.executor.process.worker_executor import WorkerExecutor
from headrace.pool.executor.ray.cluster import Cluster
from headrace.pool.executor.ray.config import HostConfig
from headrace.pool.executor.ray.host import connect
from headrace.pool.executor.ray.placement import HostPlacement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextvars import ContextVar

    from headrace.pool.executor.process.work import Work
    from headrace.pool.executor.ray.cluster import Node
    from headrace.pool.executor.ray.config import HostAddress
    from headrace.pool.executor.ray.host import Host

_LOOK_EVERY = 1.0
"""The seconds between two looks at the nodes of the cluster."""

_MAX_FAILED_STARTS = 3
"""The number of hosts in a row that may fail to start before the first one is ready."""

_SHORTEST_FENCE = 1.0
"""The minimum fence: a busy machine may not answer for a part of it."""

_LONGEST_PAUSE = 30.0
"""The maximum seconds before the next start on a node where a start has failed."""

_PATIENCE = 10.0
"""The seconds for which a host may wait for processors without a warning."""


class RayExecutor(WorkerExecutor[HostPlacement]):
    """An executor whose tasks run in worker processes on all nodes of a Ray cluster.

    Open it with `async with RayExecutor("auto") as executor:`, and pass it as `executor=` of a runner or of `map_pool`. It needs
    `pip install 'headrace[ray]'`, here and on each node, and Linux on the nodes.

    Each node gets a host: an actor that takes all processors of the node from Ray, or `workers` of them, and runs as many worker
    processes. A new node is used within 5 seconds. A node that Ray has lost gets no more tasks, and those that it has may end.
    A host waits until its processors are free. After 10 seconds, a `RuntimeWarning` names its node; `repr` and `explain()` do so too.

    A function and its arguments are pickled: the nodes must be able to import its module. The functions and classes of the main module are
    sent by value. Otherwise it is as with a `ProcessExecutor`: cancellation, timeouts, streams, `current_lease().settle()`, errors.

    - *A worker that dies* loses the task that ran there: it ends with `WorkerLost`, and a `Retry` calls it again.
    - *A host that dies* loses all tasks that it had, also those that waited there: which ones had begun is not known. It ends within
      seconds of its raylet. A raylet that is a zombie, in a container without an init, is noticed when Ray reports its node, 15 s later.
    - *A host that does not answer* keeps its tasks until it is certain that they have ended. `cancel` returns UNKNOWN meanwhile, and
      other hosts go on. After `fence` seconds without a sign of this program, a watchdog on the node ends all work there; a little later
      its tasks end here with `WorkerLost(confirmed="fence")`. Only a virtual machine that is suspended can outlive that.
    - *The end of this program*, by `kill -9` too, ends all work at once.

    Values and outcomes travel through TCP connections of their own, with a secret, and not encrypted: use a network that you trust.

    *Order*: tasks begin in the order of their submission, but for those that are sent again. *Bound*: on each node, `workers *
    (tasks_per_worker + prefetch)` tasks are pickled at a time, and `window` values of each; runs that share the executor may add the
    tasks that have waited for their capacity. *Cost*: about 50 us of this program a task; a host takes 1-3 s to start. Ray
    started here takes 4-17 s and 450 MB. *Cancel safety*: cancelling `start` or `aclose` leaves the executor as it is; call it again.

    Args:
        address: The address of a cluster: "auto" for that of this node, or HOST:PORT. None starts Ray on this machine, for this machine
            only, and ends it in `aclose`. If the program has called `ray.init` itself, that Ray is used, and left.
        workers: The number of worker processes of each node; None for one for each processor that Ray counts there.
        prefetch: The number of tasks that wait at a worker behind those that run there. Short tasks need more of them than on one machine;
            0 for long tasks under a tight limit, since a waiting task holds its capacity.
        window: The maximum number of values that a task has yielded and that were not read.
        tasks_per_worker: The number of tasks that run side by side in a worker, as in a `ProcessExecutor`.
        grace: The seconds for which a cancelled async function may clean up before its worker is killed; None never kills it.
        kill: Whether the worker is killed after `grace` also if other tasks run there. They end with `WorkerLost`.
        carry: The context variables whose values travel with each task. Each must be a global of a module that the nodes can import.
        fence: The seconds without a sign of this program after which the work of a node is ended. At least 1.
        linger: The maximum seconds for which outcomes wait on their node for others, to travel together. The first one after a rest does
            not wait, nor does one without which workers could run out of tasks.
        runtime_env: The environment of the hosts, as Ray takes it. `pip` and `uv` need `ray[default]` on the nodes. If the program has
            called `ray.init` itself, local directories belong into its `runtime_env=`. If the environment cannot be made, each
            task fails with a `BrokenError` that has the reason.

    Raises:
        ValueError: A number is out of its range, a context variable is not a global, or the address is that of a Ray client.
        TypeError: An argument has the wrong type.
    """

    _has_main = False

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        prefetch: int = 1,
        window: int = 8,
        tasks_per_worker: int = 1,
        grace: float | None = 5.0,
        kill: bool = False,
        carry: Iterable[ContextVar[Any]] = (),
        fence: float = 15.0,
        linger: float = 0.005,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self._workers = None if workers is None else check_size("workers", workers)
        super().__init__(
            HostPlacement(),
            window=check_size("window", window),
            can_force=check_flag("kill", kill)
            or check_size("tasks_per_worker", tasks_per_worker) == 1,
            carry=carry,
        )
        self._config = HostConfig(
            workers=self._workers or 1,
            prefetch=check_int("prefetch", 0, prefetch),
            window=window,
            tasks_per_worker=tasks_per_worker,
            grace=None if grace is None else check_seconds("grace", grace),
            kill=kill,
            carry=self._carried,
            fence=_check_fence(fence),
            linger=check_seconds("linger", linger),
        )
        self._cluster = Cluster(address, runtime_env)
        self._opening: asyncio.Future[None] | None = None
        # The task that looks at the nodes, and its wake-up.
        self._looking: asyncio.Task[None] | None = None
        self._look_now: asyncio.Event | None = None
        # The hosts that are being started, by their nodes.
        self._starting: dict[str, asyncio.Task[None]] = {}
        # The number of starts that have failed in a row on a node, and the time of the next one.
        self._failed: dict[str, tuple[int, float]] = {}
        self._failed_starts = 0
        self._was_ready = False
        # The long waits of hosts for processors, in words, by their nodes.
        self._late: dict[str, str] = {}

    def _repr_parts(self) -> Iterator[str]:
        ready = [host for host in self._placement.workers if host.can_run]
        yield pluralize(len(ready), "host")
        yield pluralize(sum(host.slots for host in ready), "slot")
        yield from self._late.values()
        if self._is_closing:
            yield "closed"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses of the nodes whose hosts take tasks."""
        return tuple(host.node.ip for host in self._placement.workers if host.can_run)

    async def start(self) -> None:
        """Connect to the cluster or start Ray, without waiting for the hosts. Idempotent.

        Raises:
            ClosedError: The executor was closed.
            WrongLoopError: The executor runs on another event loop.
            ImportError: Ray is not installed.
            ConnectionError: There is no cluster at the address.
        """
        self._enter_loop()
        if self._looking is not None:
            return
        if self._opening is None:
            # Shared by all callers, and not cancelled with one of them. It does not run in the context of the run that starts it.
            self._opening = self.loop.create_task(
                self._open(), name="headrace: connection to Ray", context=Context()
            )
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        try:
            await self._cluster.open(self._workers)
            if not self._is_closing:
                self._look_now = asyncio.Event()
                self._looking = self.loop.create_task(
                    self._look(self._look_now), name="headrace: nodes of Ray"
                )
        finally:
            self._opening = None

    async def aclose(self, grace: float | None = None) -> None:
        """End all hosts, and wait for them; end Ray if it was started here. Idempotent.

        Tasks that still run are killed, and end with `CancelledError`. A host that cannot be reached is waited for until it is fenced.

        Args:
            grace: The seconds in which an idle worker may end by itself, for its `atexit` functions; None for those of the constructor.
        """
        self._check_process()
        self._is_closing = True
        if self._loop is not None:
            if self._loop is not asyncio.get_running_loop():
                if not self._loop.is_closed():
                    raise WrongLoopError(f"{self!r} runs on another event loop")
                self._abandon()
            await self._end_hosts(self._config.grace if grace is None else grace)
        await self._cluster.aclose()
        self._loop = None

    async def _end_hosts(self, grace: float | None) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._placement.refuse(asyncio.CancelledError())
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for starting in self._starting.values():
            starting.cancel()
        if self._starting:
            await asyncio.wait(self._starting.values())
        hosts = list(self._placement.workers)
        for host in hosts:
            host.stop(grace)
        if hosts:
            await asyncio.wait([host.ended for host in hosts])

    # Hosts.

    async def _look(self, now: asyncio.Event) -> None:
        """Start a host on each new node, and drain those of nodes that Ray has lost."""
        while True:
            now.clear()
            # While Ray does not answer, the hosts go on.
            with suppress(Exception):
                self._compare(await self._cluster.nodes())
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await now.wait()

    def _compare(self, nodes: list[Node]) -> None:
        alive = {node.id for node in nodes}
        for host in self._placement.workers:
            if host.node.id not in alive:
                host.drain()
        used = {host.node.id for host in self._placement.workers} | self._starting.keys()
        for node in nodes:
            _, next_start = self._failed.get(node.id, (0, 0.0))
            if node.id not in used and next_start <= self.loop.time() and self._broken is None:
                self._starting[node.id] = self.loop.create_task(
                    self._start_host(node), name=f"headrace: host of {node.ip}", context=Context()
                )

    async def _start_host(self, node: Node) -> None:
        config = self._config_of(node)
        actor: Any = None
        try:
            actor, starting = await self._cluster.create(node, config)
            address = await self._address(node, config, asyncio.wrap_future(starting))
            host = await connect(self, node, actor, address, config)
        except BaseException as error:
            if actor is not None:
                self._cluster.kill(actor)
            if not isinstance(error, Exception):
                raise
            self._on_failed_start(node, error)
        else:
            self._placement.workers.append(host)
        finally:
            del self._starting[node.id]
            self._late.pop(node.id, None)

    async def _address(
        self, node: Node, config: HostConfig, starting: asyncio.Future[HostAddress]
    ) -> HostAddress:
        """Wait until a host has started, and warn if it waits long for processors."""
        try:
            done, _ = await asyncio.wait([starting], timeout=_PATIENCE)
            if not done and (late := await self._cluster.describe_wait(node, config)):
                self._late[node.id], advice = late
                text = f"{late[0]}, for {_PATIENCE:g} s so far: {advice}"
                # As a callback: the warning may be turned into an error, which the event loop reports.
                self.loop.call_soon(warnings.warn, text, RuntimeWarning)
            return await starting
        finally:
            starting.cancel()

    def _config_of(self, node: Node) -> HostConfig:
        return self._config if self._workers else replace(self._config, workers=node.processors)

    def _on_failed_start(self, node: Node, error: BaseException) -> None:
        """Note that no host could start on a node: try again after a pause, or refuse all tasks."""
        failures = self._failed.get(node.id, (0, 0.0))[0] + 1
        pause = min(0.25 * 2.0 ** min(failures, 16), _LONGEST_PAUSE)
        self._failed[node.id] = failures, self.loop.time() + pause
        self._failed_starts += 1
        if self._failed_starts < _MAX_FAILED_STARTS or self._was_ready or self._placement.workers:
            return
        self._break(f"its hosts cannot start: {error}", error)

    # The hosts call these, and `place`.

    def on_ready(self, host: Host) -> None:
        """Note that the first worker of a host is ready."""
        self._was_ready = True
        self._failed.pop(host.node.id, None)

    def on_change(self) -> None:
        """Note that a host takes more or fewer tasks."""
        self._capabilities = None
        self._placement.fill()
        self._changed()

    def on_space(self) -> None:
        """Note that a task of a host has ended."""
        self._placement.fill()

    def kill(self, host: Host) -> None:
        """End the actor of a host."""
        self._cluster.kill(host.actor)

    def on_end(self, host: Host, left: list[Work], confirmed: Literal["exit", "fence"]) -> None:
        """Note that a host has ended, with the tasks that it had."""
        self._cluster.kill(host.actor)
        self._placement.workers.remove(host)
        reason = "has ended" if confirmed == "exit" else "cannot be reached, and is fenced"
        for work in left:
            if work.is_cancelled:
                work.end_with_error(asyncio.CancelledError())
            else:
                # It may have begun, and the host has not reported it.
                work.begin()
                work.end_with_error(
                    WorkerLost(
                        f"{host.where} {reason} while it had {work.name}",
                        started=True,
                        confirmed=confirmed,
                        where=host.where,
                    )
                )
        if host.failure is not None:
            self._on_failed_start(host.node, host.failure)
        if self._look_now is not None:
            self._look_now.set()
        self.on_change()

    def _abandon(self) -> None:
        """Give up the hosts of an event loop that was closed: they end their work."""
        for host in self._placement.workers:
            host.give_up()
        self._placement.workers.clear()
        self._starting.clear()
        self._looking = self._opening = None
        self._loop = None


def _check_fence(fence: float) -> float:
    seconds = check_seconds("fence", fence)
    if seconds < _SHORTEST_FENCE:
        raise ValueError(f"fence must be at least {_SHORTEST_FENCE:g} s, got {fence!r}")
    return seconds
