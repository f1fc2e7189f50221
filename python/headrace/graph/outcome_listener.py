"""`OutcomeListener`: the protocol of a source that is notified of the outcome of its tasks.

`pool.config` looks for it; the engine calls it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class OutcomeListener(Protocol):
    """The protocol of a source that is notified of the outcome of its tasks.

    A runner notifies only the source object that was passed to it, which is a pull object or a plain (async) iterable. A source
    behind a `map` is not notified. For each item that it pulled and that ended for good, it calls exactly one of the two
    methods, on the event loop of the run. It does so once the capacity of the task is released and its own callbacks have
    returned, not between two attempts. An item that cannot run because it is not a task has failed. A cancelled item has failed
    with its `CancelledError`. An item that was pulled but never called is kept for the next run, and has not ended.

    Both methods must return at once and raise nothing.
    """

    def completed(self, item: object, value: object, /) -> object:
        """Handle a task that ended with a value.

        Args:
            item: The object that was pulled.
            value: Its final value.
        """
        ...

    def failed(self, item: object, error: BaseException, /) -> object:
        """Handle a task whose last attempt ended with an error.

        Args:
            item: The object that was pulled.
            error: The exception that it raised.
        """
        ...
