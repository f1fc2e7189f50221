"""`First`: the error of the first task of a run that failed."""

from __future__ import annotations


class First:
    """That error, for whoever asks when the run has ended.

    The traceback of an error that a task raised in its first step leads, where that is taken eagerly, to the frames that
    called it, and so to the run: it cannot be kept there.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None
