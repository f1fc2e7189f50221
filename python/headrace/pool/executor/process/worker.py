"""The main program of a worker process: `main` receives tasks, runs them, and sends their values and outcomes.

A worker runs one task at a time (`_Worker`). A plain function runs in the main thread, and blocks it. The result of an async function
is driven by an event loop that lives as long as the worker, so that a client made for one task serves the next. The loop runs only while
such a task runs. With `tasks_per_worker` above 1 the loop runs always (`_ConcurrentWorker`): async functions run side by side on it, and
plain functions in threads.

The worker begins its tasks in the order of their positions; `rust/core/src/worker/mod.rs` has the handshake with the driver.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, unwrap
from typing import TYPE_CHECKING, Any, cast

from headrace._core import FrameChannel, WorkerCells, end_with_driver
from headrace.pool.executor.loop import drive
from headrace.pool.executor.process.messages import (
    Kind,
    Parts,
    dump_error,
    dump_value,
    dumps,
    load_task,
    loads,
)
from headrace.pool.executor.process.setup import found, is_preparing
from headrace.pool.executor.remote import RemoteLease, carried

if TYPE_CHECKING:
    from headrace.pool.executor.process.setup import Setup

Outcome = tuple[Kind, Parts]


def main(channel_fd: int, cells_fd: int, *lifelines: int) -> None:
    """Run tasks until the driver ends the worker or has died.

    Args:
        channel_fd: The socket.
        cells_fd: The file of the cells.
        *lifelines: Descriptors that are readable when the driver, or another process that the worker needs, has died.
    """
    end_with_driver(*lifelines)
    # Ctrl-C is for the driver, which ends its workers. A terminal does not signal this process, but a container may.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = FrameChannel(channel_fd)
    try:
        setup = _setup(channel)
        if setup is None:
            return
        cells = WorkerCells(cells_fd, setup.cells, setup.ring)
        os.close(cells_fd)
        carry = found(setup.carry)
    except BaseException as error:
        with suppress(OSError):
            channel.send(Kind.FAILED, 0, dump_error(error), wait=True)
        # The driver reports it.
        sys.exit(1)
    kind = _Worker if setup.tasks_per_worker == 1 else _ConcurrentWorker
    worker = kind(channel, cells, setup, carry)
    try:
        channel.send(Kind.HELLO, 0, (), wait=True)
        worker.serve()
    except (_Stop, BrokenPipeError, ConnectionError):
        # The driver does not need this worker any more.
        pass
    finally:
        worker.close()
        channel.close()


def _setup(channel: FrameChannel) -> Setup | None:
    """Receive the setup, and import the main module of the driver; None if the driver has ended."""
    from multiprocessing import spawn

    frames = channel.receive(wait=True)
    if frames is None:
        return None
    ((_, _, parts),) = frames
    setup = cast("Setup", loads(parts))
    is_preparing.set()
    try:
        spawn.prepare(setup.main)
    finally:
        is_preparing.clear()
    return setup


class _Stop(BaseException):
    """The driver has stopped this worker, or has ended."""


class _Call:
    """A task that runs in this worker. It is also the receiver of its values (`Yields`)."""

    def __init__(self, worker: _Worker, position: int, name: str) -> None:
        self.name = name
        self.task: asyncio.Task[Outcome] | None = None
        self._worker = worker
        self._position = position
        self._room = worker.window
        self._credited: asyncio.Future[None] | None = None

    def emit(self, value: object) -> Awaitable[None] | None:
        """Send a value; return an awaitable if the window is full."""
        self._worker.send(Kind.EMIT, self._position, dump_value(value, "yielded"))
        self._room -= 1
        return None if self._room > 0 else self._wait()

    def credit(self, values: int) -> None:
        """Note that the driver has read values."""
        self._room += values
        if self._credited is not None and not self._credited.done():
            self._credited.set_result(None)

    def settle(self, amounts: dict[str, float]) -> None:
        """Send the amounts of the lease."""
        self._worker.send(Kind.SETTLE, self._position, dumps(amounts))

    async def _wait(self) -> None:
        while self._room <= 0:
            self._credited = asyncio.get_running_loop().create_future()
            try:
                await self._credited
            finally:
                self._credited = None


class _Worker:
    """A worker that runs one task at a time."""

    def __init__(
        self,
        channel: FrameChannel,
        cells: WorkerCells,
        setup: Setup,
        carry: tuple[ContextVar[Any], ...],
    ) -> None:
        self.window = setup.window
        self._channel = channel
        self._cells = cells
        self._cell = setup.cell
        self._carry = carry
        self._limit = setup.tasks_per_worker
        self._waiting: deque[tuple[int, Parts]] = deque()
        # The tasks that run, by their positions.
        self._calls: dict[int, _Call] = {}
        self._runner = asyncio.Runner()

    def send(self, kind: Kind, position: int, parts: Parts) -> None:
        """Send a message, and wait until all of it is written. Any thread may call it."""
        self._channel.send(kind, position, parts, wait=True)

    def serve(self) -> None:
        """Run tasks until `_Stop` is raised."""
        while True:
            while not self._waiting:
                self._receive(wait=True)
            position, parts = self._waiting.popleft()
            # First, so that the driver never takes a task that has begun for one that can be asked to stop.
            self._cells.set_blocking(self._cell, position)
            if not self._cells.begin(self._cell, position):
                self._cells.set_blocking(self._cell, 0)
                self.send(Kind.VETOED, position, ())
                continue
            kind, outcome = self._run(position, parts)
            self._cells.set_blocking(self._cell, 0)
            self.send(kind, position, outcome)

    def close(self) -> None:
        """Close the event loop."""
        self._runner.close()

    def _receive(self, *, wait: bool = False) -> None:
        frames = self._channel.receive(wait=wait)
        if frames is None:
            raise _Stop
        for kind, position, parts in frames:
            if kind == Kind.RUN:
                self._waiting.append((position, parts))
            elif kind == Kind.STOP:
                raise _Stop
            elif (call := self._calls.get(position)) is None:
                # It has ended.
                continue
            elif kind == Kind.CREDIT:
                call.credit(loads(parts))
            elif kind == Kind.CANCEL and call.task is not None:
                call.task.cancel()

    def _run(self, position: int, parts: Parts) -> Outcome:
        """Run a task to its end."""
        try:
            call, work, context = self._load(position, parts)
        except Exception as error:
            return Kind.RAISED, dump_error(error)
        try:
            value = context.run(work)
        except BaseException as error:
            return Kind.RAISED, dump_error(error)
        if not isinstance(value, (Awaitable, AsyncGenerator)):
            return _returned(value)
        self._calls[position] = call
        try:
            return self._runner.run(self._driven(call, cast("object", value)), context=context)
        finally:
            del self._calls[position]

    def _load(self, position: int, parts: Parts) -> tuple[_Call, partial[object], Context]:
        """Return a task with its function and its context."""
        fn, args, name, values, has_lease = load_task(parts)
        call = _Call(self, position, name)
        sent = Context()
        for index, value in cast("dict[int, object]", values).items():
            variable: ContextVar[object] = self._carry[index]
            sent.run(variable.set, value)
        lease = RemoteLease(call.settle) if has_lease else None
        return call, partial(fn, *args), carried(sent, self._carry, lease)

    async def _driven(self, call: _Call, value: object) -> Outcome:
        """Drive the result of an async function, and meanwhile receive messages."""
        loop = asyncio.get_running_loop()
        call.task = cast("asyncio.Task[Outcome]", asyncio.current_task())
        loop.add_reader(self._channel.fileno(), self._on_readable)
        self._cells.set_blocking(self._cell, 0)
        try:
            return await _outcome(call, value)
        finally:
            call.task = None
            loop.remove_reader(self._channel.fileno())

    def _on_readable(self) -> None:
        try:
            self._receive()
        except _Stop:
            # The driver ends a worker only if it does not need the running task any more.
            os._exit(0)


class _ConcurrentWorker(_Worker):
    """A worker that runs several tasks side by side."""

    def serve(self) -> None:
        """Run tasks until the driver ends the worker."""
        self._threads = ThreadPoolExecutor(self._limit, "headrace task")
        self._runner.run(self._serve())

    def close(self) -> None:
        """Cancel the tasks that are left, and leave the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._channel.fileno(), self._on_readable)
        self._start_waiting()
        await self._stopped

    def _on_readable(self) -> None:
        try:
            self._receive()
        except _Stop:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._stopped.set_result(None)
            return
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._calls) < self._limit:
            position, parts = self._waiting.popleft()
            if not self._cells.begin(self._cell, position):
                self.send(Kind.VETOED, position, ())
                continue
            try:
                call, work, context = self._load(position, parts)
            except Exception as error:
                self.send(Kind.RAISED, position, dump_error(error))
                continue
            self._calls[position] = call
            call.task = asyncio.get_running_loop().create_task(
                self._call(call, work), name=call.name, context=context
            )
            call.task.add_done_callback(partial(self._on_end, position))

    async def _call(self, call: _Call, work: partial[object]) -> Outcome:
        if _is_async(work.func):
            return await _outcome(call, work())
        # A copy of the context, since a context cannot be entered twice.
        context = copy_context()
        running = asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        # A thread cannot be stopped, so a cancellation waits for its end.
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        try:
            value = running.result()
        except BaseException as error:
            return Kind.RAISED, dump_error(error)
        if not isinstance(value, (Awaitable, AsyncGenerator)):
            return _returned(value)
        return await _outcome(call, cast("object", value))

    def _on_end(self, position: int, task: asyncio.Task[Outcome]) -> None:
        del self._calls[position]
        if self._stopped.done():
            return
        if task.cancelled():
            # Before its first step.
            kind, parts = Kind.RAISED, dump_error(asyncio.CancelledError())
        else:
            kind, parts = task.result()
        self.send(kind, position, parts)
        self._start_waiting()


def _is_async(function: Callable[..., object]) -> bool:
    """Return whether a function is defined as async, so that calling it does not block."""
    while isinstance(function, partial):
        function = function.func
    function = unwrap(function)
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004 (the function behind it)
    return iscoroutinefunction(function) or isasyncgenfunction(function)


async def _outcome(call: _Call, value: object) -> Outcome:
    """Drive a result to its end."""
    try:
        return _returned(await drive(value, call))
    except BaseException as error:
        # Also a `SystemExit`, which asyncio would raise out of the event loop: the driver decides.
        return Kind.RAISED, dump_error(error)


def _returned(value: object) -> Outcome:
    try:
        return Kind.RETURNED, dump_value(value, "returned")
    except Exception as error:
        return Kind.RAISED, dump_error(error)


def start() -> None:
    """Call `main` with the arguments of the command line."""
    main(*map(int, sys.argv[2:]))
