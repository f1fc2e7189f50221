"""`CallThread`: a thread that makes calls one after another, also while the interpreter exits."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from headrace._internal.copying import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class CallThread(Uncopied):
    """A thread that makes calls in their order.

    It is a daemon: `headrace.map` closes its executors while the interpreter exits, when the threads of a `ThreadPoolExecutor` have ended.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Make a call after those before it. Return a future of its result."""
        future = Future[R]()
        self._calls.put((future, partial(function, *args, **kwargs)))
        return future

    def end(self) -> None:
        """End the thread after all calls, without waiting."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            # Otherwise the thread would keep them until the next call.
            del call, future, function
