"""`Keys`: which task of a run has which key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace._internal.reprs import short_repr

if TYPE_CHECKING:
    from collections.abc import Hashable


class Keyed(Protocol):
    """A task that may have a key."""

    task_id: int
    key: Hashable


class Keys:
    """The keys of the tasks that are alive, each of one task.

    A key is an object of the user's: its hash, its comparison and its text may raise. That costs its own task, and no other.

    Args:
        name: of the pool.
    """

    __slots__ = ("_name", "taken")

    def __init__(self, name: str) -> None:
        self._name = name
        self.taken: dict[object, Keyed | int] = {}
        """Who has which; of a plain task its id."""

    def give(self, job: Keyed) -> None:
        """Gives a job the key that it has.

        Raises:
            ValueError: another task has it.
            BaseException: what the key raises.
        """
        if job.key is None:
            return
        holder = self.taken.setdefault(job.key, job)
        if holder is not job:
            owner = holder if isinstance(holder, int) else holder.task_id
            raise ValueError(
                f"{self._name}: key {short_repr(job.key)} is that of task {owner}, which has not ended"
            )

    def take_back(self, job: Keyed) -> None:
        """The job has ended: its key is free, if it had it."""
        if job.key is None:
            return
        try:
            if self.taken.get(job.key) is job:
                del self.taken[job.key]
        except BaseException:
            # Nobody can find it, so that nobody is refused for it: it stays until the run has ended.
            return
