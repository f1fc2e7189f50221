"""`OutcomeListener`: a source that wants to know how the tasks that it gave have ended."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class OutcomeListener(Protocol):
    """What a source has besides its items, if it wants to be told what became of them.

    A runner tells the source that it was given, the very object: one that stands behind a `map` hears nothing. For each
    item that it pulled and that ended for good, it calls exactly one of the two, on the loop of its run, as soon as the
    task's capacity is given back and its own callbacks were called: not between two attempts. An item that could not be
    run at all, since it is no task, has failed; so has one that was cancelled, with that `CancelledError`. One that was
    pulled and never called goes to the next run, and has not ended.

    Both return at once and raise nothing.
    """

    def completed(self, item: object, value: object, /) -> object:
        """The task has ended with a value.

        Args:
            item: What was pulled, the same object.
            value: Its final value.
        """
        ...

    def failed(self, item: object, error: BaseException, /) -> object:
        """The task has ended with an error, its last attempt included.

        Args:
            item: What was pulled, the same object.
            error: What it raised.
        """
        ...
