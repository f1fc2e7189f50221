"""`Host`: the host of a node, as its driver sees it.

A host has two connections. Tasks and outcomes travel through the first one (`Link`). The second one is to its watchdog, and proves that the
driver lives: a thread without the interpreter lock (`HostLease`) answers each stamp of the watchdog. If the answers do not arrive, the
watchdog ends the work of the host. The driver knows when that must have happened, although it cannot reach the host:

| state of the lease | reason | the tasks of the host |
|---|---|---|
| answering | stamps arrive | run |
| silent | no stamp for a third of the fence | go on; `cancel` returns UNKNOWN, and no more tasks are given |
| ended | the watchdog reports that all processes have ended | end with `WorkerLost(confirmed="exit")` |
| fenced | the fence has passed | end with `WorkerLost(confirmed="fence")` |

The end of the first connection is the end of the host: the driver requests it from the watchdog, and waits for one of the last two states.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace._core import HostLease
from headrace._internal.copying import Uncopied
from headrace.pool.executor.process.messages import Kind, dumps, load_error
from headrace.pool.executor.ray.config import START_UP
from headrace.pool.executor.ray.link import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.pool.executor.process.messages import Buffer
    from headrace.pool.executor.process.work import Work
    from headrace.pool.executor.ray.cluster import Node
    from headrace.pool.executor.ray.config import HostAddress, HostConfig
    from headrace.pool.executor.ray.link import Frames

_CONNECT_TIMEOUT = 30.0
"""The maximum seconds until both connections are there."""

_KILL_TIMEOUT = 1.0
"""The maximum seconds that Ray takes to end an idle host before its watchdog does."""

_LAST_READ = 0.5
"""The maximum seconds between the report that all has ended and the end of the first connection, whose outcomes are still read."""


class Owner(Protocol):
    """The executor of a host."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        ...

    def on_ready(self, host: Host) -> None:
        """Note that the first worker of a host is ready. `on_change` follows."""
        ...

    def on_change(self) -> None:
        """Note that a host takes more or fewer tasks."""
        ...

    def on_space(self) -> None:
        """Note that a task of a host has ended."""
        ...

    def place(self, work: Work) -> None:
        """Give a task that has not begun to a host."""
        ...

    def kill(self, host: Host) -> None:
        """End the actor of a host."""
        ...

    def on_end(self, host: Host, left: list[Work], confirmed: Literal["exit", "fence"]) -> None:
        """Note that a host has ended, with the tasks that it had."""
        ...


async def connect(
    owner: Owner, node: Node, actor: Any, address: HostAddress, config: HostConfig
) -> Host:
    """Connect to a host that has started.

    Raises:
        OSError: The host cannot be reached.
        TimeoutError: It cannot be reached in time.
    """
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        # The watchdog first: it ends the host if the driver does not come back.
        to_watchdog = await _connection(
            owner.loop, address.ip, address.watchdog_port, address.token
        )
        lease = HostLease(to_watchdog.detach(), config.fence, START_UP)
        try:
            to_host = await _connection(owner.loop, address.ip, address.port, address.token)
        except BaseException:
            lease.close()
            raise
    return Host(owner, node, actor, address.pid, to_host, lease)


async def _connection(
    loop: asyncio.AbstractEventLoop, ip: str, port: int, token: bytes
) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await loop.sock_connect(connection, (ip, port))
        await loop.sock_sendall(connection, token)
    except BaseException:
        connection.close()
        raise
    return connection


class Host(Uncopied):
    """The host of a node.

    Args:
        owner: The executor.
        node: The node.
        actor: The Ray actor. The reference keeps it alive.
        pid: The process of the actor.
        connection: The socket to the host.
        lease: The lease of the host.
    """

    def __init__(
        self,
        owner: Owner,
        node: Node,
        actor: Any,
        pid: int,
        connection: socket.socket,
        lease: HostLease,
    ) -> None:
        self._owner = owner
        self.node: Node = node
        self.actor: Any = actor
        self.pid: int = pid
        """The process of the actor, on its node."""
        self.works: dict[int, Work] = {}
        """The tasks without an outcome, by their numbers and in this order."""
        self.slots: int = 0
        """The maximum number of tasks, which changes with the workers that are ready."""
        self.is_ending: bool = False
        """Whether the host gets no more tasks, and is ended when it has none."""
        self.failure: BaseException | None = None
        """The reason why its workers cannot start, if that is so."""
        self.ended: asyncio.Future[None] = owner.loop.create_future()
        """Done when nothing of the host can run any more."""
        self._last_number = 0
        self._is_lost = False
        self._is_stopping = False
        self._confirmed: Literal["exit", "fence"] | None = None
        # None at the end: the object has descriptors.
        self._lease: HostLease | None = lease
        self._state = "silent"
        # Without a pause: the tasks of one event-loop iteration go together.
        self._link = Link(
            owner.loop, connection, 0.0, on_frames=self._on_frames, on_end=self._on_link_end
        )
        owner.loop.add_reader(lease.fileno(), self._on_lease)
        self._on_lease()

    @property
    def answers(self) -> bool:
        """Whether the host responds, as far as is known."""
        return self._state == "answering" and not self._is_lost

    @property
    def can_run(self) -> bool:
        """Whether the host takes tasks."""
        return self.slots > 0 and not self.is_ending and self.answers

    @property
    def where(self) -> str:
        """The name of the host, for messages."""
        return f"node {self.node.ip}"

    # Tasks.

    def give(self, work: Work) -> None:
        """Send a task. The caller has checked that the host takes it."""
        self._last_number += 1
        work.position = self._last_number
        work.worker = self
        self.works[work.position] = work
        self._link.send(Kind.RUN, work.position, (*work.message, work.name.encode()))

    def cancel(self, work: Work) -> None:
        """Cancel a task of this host."""
        self._link.send(Kind.CANCEL, work.position, ())

    def refuse(self, work: Work) -> None:
        """Cancel a task that has its outcome already."""
        self.cancel(work)

    def credit(self, work: Work, values: int) -> None:
        """Allow a task to send more values."""
        self._link.send(Kind.CREDIT, work.position, dumps(values))

    def _on_frames(self, frames: Frames) -> None:
        has_space = False
        for kind, number, parts in frames:
            has_space |= self._on_frame(kind, number, parts)
        if has_space:
            self._owner.on_space()
            self._end_if_drained()

    def _on_frame(self, kind: int, number: int, parts: Sequence[Buffer]) -> bool:
        """Process a message. Return whether a task has ended."""
        if kind == Kind.BEGUN:
            for begun in memoryview(parts[0]).cast("Q"):
                if (work := self.works.get(begun)) is not None:
                    work.begin()
        elif kind == Kind.SLOTS:
            was_ready, self.slots = self.slots > 0, number
            if number and not was_ready:
                self._owner.on_ready(self)
            self._owner.on_change()
        elif kind == Kind.FAILED:
            self.failure = load_error(parts, self.where)
            self.drain()
        elif (work := self.works.get(number)) is not None:
            if kind != Kind.RAISED:
                work.begin()
            if kind in (Kind.EMIT, Kind.SETTLE):
                work.receive(kind, parts, self.where)
            else:
                del self.works[number]
                work.receive(kind, parts, self.where)
                return True
        return False

    # The end.

    def drain(self) -> None:
        """Give no more tasks, and end the host when it has none. Idempotent."""
        if not self.is_ending:
            self.is_ending = True
            self._owner.on_change()
            self._end_if_drained()

    def stop(self, grace: float | None) -> None:
        """Cancel all tasks and end the host.

        Args:
            grace: The seconds in which its idle workers may end by themselves.
        """
        self.is_ending = self._is_stopping = True
        for work in self.works.values():
            work.is_cancelled = True
        self._link.send(Kind.STOP, 0, dumps(grace))

    def give_up(self) -> None:
        """Close the connections without an event loop: the host ends its work."""
        self._link.close()
        self._close_lease()

    def _close_lease(self) -> None:
        """Ask the watchdog to end all work."""
        if self._lease is not None:
            self._lease.close()

    def _end_if_drained(self) -> None:
        if self.is_ending and not self.works:
            self.stop(None)

    def _on_link_end(self) -> None:
        """End the host: without this connection it is of no use."""
        self._is_lost = True
        if self._is_stopping:
            # Ray first, which reports the end of an actor as a failure unless it has ended it.
            self._owner.kill(self)
            self._owner.loop.call_later(_KILL_TIMEOUT, self._close_lease)
        else:
            self._close_lease()
        self._owner.on_change()
        self._finish()

    def _on_lease(self) -> None:
        if self._lease is None:
            return
        state, self._state = self._state, self._lease.state
        if self._state == "fenced":
            self._confirm("fence")
        elif self._state == "ended":
            self._confirm("exit")
        elif state != self._state:
            self._owner.on_change()

    def _confirm(self, confirmed: Literal["exit", "fence"]) -> None:
        if self._confirmed is not None:
            return
        self._confirmed = confirmed
        if self._lease is not None:
            # The thread of the lease has ended.
            self._owner.loop.remove_reader(self._lease.fileno())
            self._lease = None
        self._owner.on_change()
        if confirmed == "fence" or self._is_lost:
            self._finish()
        else:
            # The outcomes that were sent before may not be here yet.
            self._owner.loop.call_later(_LAST_READ, self._finish)

    def _finish(self) -> None:
        if self.ended.done() or self._confirmed is None:
            return
        self._is_lost = True
        self._link.close()
        self.ended.set_result(None)
        left = list(self.works.values())
        self.works.clear()
        self._owner.on_end(self, left, self._confirmed)
