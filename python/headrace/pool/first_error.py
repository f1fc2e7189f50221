"""`FirstError`: the error of the first task of a run that failed. `TaskRun` makes one; `Run` sets it."""

from __future__ import annotations


class FirstError:
    """The error of the first task of a run that failed.

    A run that has ended does not refer to this object. The traceback of an error that a task raised in its first step may refer to the
    frames of its caller, and so to the run.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None
