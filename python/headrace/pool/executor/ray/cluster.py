"""`Cluster`: all that a `RayExecutor` needs of Ray: its nodes, and one actor on each. `Node`: a node.

Most calls of Ray block, so they are made in a thread. It lives as long as the cluster: the processes of a Ray that this program has
started end with the thread that has started them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import describe_value, pluralize
from headrace.pool.executor.ray.call_thread import CallThread
from headrace.pool.executor.ray.reaper import start_reaper

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from headrace.pool.executor.ray.config import HostAddress, HostConfig

P = ParamSpec("P")
R = TypeVar("R")

_OBJECT_STORE = 80 << 20
"""The bytes of the object store of a Ray that this program starts, near the least that Ray takes. No task uses it."""


_REACH_TIMEOUT = 10.0
"""The maximum seconds until the address of a cluster accepts a connection."""


def is_ray_installed() -> bool:
    """Return whether Ray can be imported. A directory named `ray`, such as that of its temporary files, is not Ray."""
    spec = find_spec("ray")
    return spec is not None and spec.origin is not None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a cluster."""

    id: str
    ip: str
    processors: int

    def needed(self, config: HostConfig) -> int:
        """Return the number of processors that a host takes."""
        return min(config.workers, self.processors)


class Cluster(Uncopied):
    """A connection to Ray.

    Args:
        address: The address of a cluster; None to start Ray on this machine.
        runtime_env: The environment of the hosts; None for that of the cluster.
    """

    def __init__(self, address: str | None, runtime_env: Mapping[str, Any] | None) -> None:
        self._address = _checked_address(address)
        if runtime_env is not None and not isinstance(cast("object", runtime_env), Mapping):
            raise TypeError(f"runtime_env must be a mapping, got {describe_value(runtime_env)}")
        self._runtime_env = None if runtime_env is None else dict(runtime_env)
        self._ray: Any = None
        self._is_ours = False
        self._thread: CallThread | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    async def open(self, processors: int | None) -> None:
        """Connect to the cluster, or start Ray; use the Ray of this program if there is one.

        Args:
            processors: The processors of a Ray that is started here; None for all.

        Raises:
            ImportError: Ray is not installed.
            ConnectionError: There is no cluster at the address.
        """
        if not is_ray_installed():
            raise ImportError(
                "a RayExecutor needs Ray, which is not installed: pip install 'headrace[ray]'"
            )
        if self._thread is None:
            self._thread = CallThread("headrace ray")
        await self._call(self._connect, processors)

    async def nodes(self) -> list[Node]:
        """Return the nodes that are alive and have processors."""
        found = cast("list[dict[str, Any]]", await self._call(self._ray.nodes))
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], int(node["Resources"]["CPU"]))
            for node in found
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]

    async def create(
        self, node: Node, config: HostConfig
    ) -> tuple[Any, asyncio.Future[HostAddress]]:
        """Create the actor of a node, which takes its processors. Return it, and its address when it has started."""
        return await self._call(self._create, node, config)

    async def describe_wait(self, node: Node, config: HostConfig) -> tuple[str, str] | None:
        """Return the wait of an actor for processors, and advice, in words; None if processors are free."""
        needed, free = node.needed(config), None
        with suppress(Exception):
            free = await self._call(self._free_processors, node)
        if free is not None and free >= needed:
            return None
        of_these = "" if free is None else f" ({free:g} free)"
        # Ray counts them as used while it prepares the environment.
        of_env = "" if self._runtime_env is None else ". Ray may also prepare its runtime_env"
        return (
            f"the host of node {node.ip} waits for {pluralize(needed, 'processor')} of Ray{of_these}",
            f"end the actors or tasks that hold them, or pass a smaller workers= to RayExecutor{of_env}",
        )

    def kill(self, actor: Any) -> None:
        """Kill an actor, soon, without waiting for the answer of Ray, which does not confirm the end."""
        if self._thread is not None:
            self._thread.submit(self._kill, actor)

    async def aclose(self) -> None:
        """Disconnect, and end Ray if it was started or joined here. Idempotent."""
        if self._thread is None:
            return
        # After all kills, of which one that came later would join Ray again.
        await self._call(self._disconnect)
        self._thread.end()
        self._thread = None

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._thread is None:
            raise RuntimeError("the connection to Ray was closed")
        return await asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))

    # In the thread.

    def _connect(self, processors: int | None) -> None:
        self._ray = ray = cast("Any", import_module("ray"))
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._runtime_env is not None:
            # For the hosts too. Ray takes a local directory only here.
            options["runtime_env"] = self._runtime_env
        if self._address is None:
            # Otherwise Ray looks for a cluster. On the loopback interface, no other machine can reach it.
            options |= {
                "address": "local",
                "_node_ip_address": "127.0.0.1",
                "num_cpus": processors,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
            }
        else:
            _check_reachable(self._address)
            options["address"] = self._address
        ray.init(**options)
        self._is_ours = True
        if self._address is None:
            self._reaper = start_reaper()

    def _disconnect(self) -> None:
        if not self._is_ours:
            return
        self._is_ours = False
        self._ray.shutdown()
        if self._reaper is not None:
            self._reaper.kill()
            self._reaper.wait()
            self._reaper = None

    def _create(self, node: Node, config: HostConfig) -> tuple[Any, asyncio.Future[HostAddress]]:
        strategies = cast("Any", import_module("ray.util.scheduling_strategies"))
        actors = cast("Any", import_module("headrace.pool.executor.ray.host_actor"))
        options: dict[str, Any] = {
            "num_cpus": node.needed(config),
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(node.id, soft=False),
            "enable_task_events": False,
        }
        if self._runtime_env is not None and not self._is_ours:
            options["runtime_env"] = self._runtime_env
        actor = self._ray.remote(actors.HostActor).options(**options).remote()
        return actor, actor.start.remote(config, node.ip).future()

    def _free_processors(self, node: Node) -> float:
        # Ray has a public function for the whole cluster only.
        state = cast("Any", import_module("ray._private.state"))
        return float(state.available_resources_per_node()[node.id].get("CPU", 0))

    def _kill(self, actor: Any) -> None:
        with suppress(Exception):
            # Otherwise `ray.kill` joins Ray, or starts it.
            if self._ray.is_initialized():
                self._ray.kill(actor, no_restart=True)


def _checked_address(address: object) -> str | None:
    """Return the address of a cluster; None for a Ray of this machine.

    Raises:
        TypeError: The address is no text.
        ValueError: It is that of a Ray client, which does not run on a node of the cluster.
    """
    if address is None or address == "local":
        return None
    if not isinstance(address, str):
        raise TypeError(
            f"address must be a text, such as 'auto', or None, got {describe_value(address)}"
        )
    if "://" in address:
        raise ValueError(
            f"address must be 'auto' or HOST:PORT, got {address!r}: run the program on a node of the cluster, "
            "since it connects to all nodes"
        )
    return address


def _check_reachable(address: str) -> None:
    """Raise a `ConnectionError` if nothing accepts connections at an address. Ray would try that for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_TIMEOUT).close()
    except OSError as error:
        raise ConnectionError(f"there is no Ray cluster at {address}: {error}") from error
