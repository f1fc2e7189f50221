"""`HostActor`: the Ray actor of a node. It runs the tasks of the driver in a `HostPool`, and passes values and outcomes on unread.

Ray starts the actor, and nothing else: tasks and outcomes travel through a TCP connection. The connection is never made again. When it
ends, the driver has ended or has given the host up, so the work is killed at once.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace.pool.executor.process.messages import Kind, dump_error, loads
from headrace.pool.executor.ray.config import HostAddress
from headrace.pool.executor.ray.host_pool import HostPool
from headrace.pool.executor.ray.link import Link
from headrace.pool.executor.ray.relayed_work import RelayedWork

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from headrace.pool.executor.process.messages import Buffer, Parts
    from headrace.pool.executor.ray.config import HostConfig
    from headrace.pool.executor.ray.link import Frames

_TOKEN_SIZE = 32

_TOKEN_TIMEOUT = 10.0
"""The seconds within which a connection must send the token."""


class HostActor:
    """The actor of a node."""

    def __init__(self) -> None:
        self._works: dict[int, RelayedWork] = {}
        # The tasks that have begun, in their order, and whose driver was not notified.
        self._begun: dict[int, None] = {}
        # The number of outcomes, and of values by task, since frames were written.
        self._outcomes = 0
        self._emitted: Counter[int] = Counter()
        self._slots = 0
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, config: HostConfig, ip: str) -> HostAddress:
        """Start the workers and the watchdog.

        Args:
            config: The options.
            ip: The address of the node.
        """
        token = secrets.token_bytes(_TOKEN_SIZE)
        listener, watchdog_listener = _listen(ip), _listen(ip)
        address = HostAddress(ip, _port(listener), _port(watchdog_listener), token, os.getpid())
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._pool = HostPool(config, watchdog_listener, token)
        await self._pool.start()
        self._start_task(self._pool.detach_watchdog())
        self._start_task(self._accept(listener, token))
        return address

    # The driver.

    async def _accept(self, listener: socket.socket, token: bytes) -> None:
        """Wait for the driver, and close connections of others."""
        with listener:
            while True:
                connection, _ = await self._loop.sock_accept(listener)
                if await self._has_token(connection, token):
                    break
                connection.close()
        self._link = Link(
            self._loop,
            connection,
            self._config.linger,
            on_frames=self._on_frames,
            on_end=self._end,
            before_flush=self._send_begun,
        )
        self._pool.watch(self._on_capabilities)
        self._on_capabilities()

    async def _has_token(self, connection: socket.socket, token: bytes) -> bool:
        connection.setblocking(False)
        received = b""
        try:
            async with asyncio.timeout(_TOKEN_TIMEOUT):
                while len(received) < len(token):
                    more = await self._loop.sock_recv(connection, len(token) - len(received))
                    if not more:
                        return False
                    received += more
        except (OSError, TimeoutError):
            return False
        return hmac.compare_digest(received, token)

    def _on_frames(self, frames: Frames) -> None:
        for kind, number, parts in frames:
            self._on_frame(kind, number, parts)

    def _on_frame(self, kind: int, number: int, parts: Sequence[Buffer]) -> None:
        if kind == Kind.RUN:
            *message, name = parts
            work = RelayedWork(self, number, tuple(message), bytes(name))
            self._works[number] = work
            self._pool.take(work)
        elif kind == Kind.STOP:
            self._start_task(self._stop(loads(parts)))
        elif (known := self._works.get(number)) is None:
            # It has ended.
            return
        elif kind == Kind.CANCEL:
            known.request_cancel()
        elif kind == Kind.CREDIT and known.worker is not None:
            known.worker.credit(known, loads(parts))

    def on_begun(self, number: int) -> None:
        """Note that a worker calls a task."""
        self._begun[number] = None
        # It is sent with the next message, which need not be one of this task.
        self._link.nudge()

    def on_message(self, number: int, kind: int, parts: Parts) -> None:
        """Send a message of a task that runs. It implies that the task has begun."""
        self._begun.pop(number, None)
        self._link.send(kind, number, parts)
        if kind == Kind.EMIT:
            self._emitted[number] += 1
            if 2 * self._emitted[number] >= self._config.window:
                # The driver must read values before the window is full.
                self._link.hurry()

    def on_outcome(self, number: int, kind: int, parts: Parts) -> None:
        """Send the outcome of a task."""
        del self._works[number]
        if number in self._begun:
            del self._begun[number]
            # A value implies that the task has begun. An error does not.
            if kind == Kind.RAISED:
                self._link.send(Kind.BEGUN, 0, _numbers([number]))
        self._link.send(kind, number, parts)
        self._outcomes += 1
        if 2 * self._outcomes >= self._slots:
            # The driver must send tasks before the workers have none left.
            self._link.hurry()

    def _send_begun(self) -> None:
        self._outcomes = 0
        self._emitted.clear()
        if self._begun:
            self._link.send(Kind.BEGUN, 0, _numbers(self._begun))
            self._begun.clear()

    def _on_capabilities(self) -> None:
        if self._pool.failure is not None:
            self._link.send(Kind.FAILED, 0, dump_error(self._pool.failure))
        else:
            self._slots = self._pool.capabilities.slots or 0
            self._link.send(Kind.SLOTS, self._slots, ())
        self._link.hurry()

    # The end.

    async def _stop(self, grace: float | None) -> None:
        """End the workers, and then the connection. The driver, or the watchdog, ends this process."""
        self._is_stopping = True
        await self._pool.aclose(grace)
        # The driver then ends this process, and Ray kills its children: the watchdog must be none, so that it reports the end.
        await self._pool.detach_watchdog()
        self._link.close_when_written()

    def _end(self) -> None:
        """End the work and this process at once: the driver or the watchdog has ended."""
        if self._is_stopping:
            # The driver ends this process, with Ray.
            return
        self._pool.kill_workers()
        os._exit(1)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _listen(ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind((ip, 0))
    listener.listen(8)
    return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _numbers(numbers: Iterable[int]) -> Parts:
    return (array("Q", numbers).tobytes(),)
