"""`SharedSlots`: the slots of one executor, for all runs that use it.

While more than one run needs a slot, a slot goes where the tree of their capacities gives capacity: at each level, to the node whose runs
have had the fewest slots for its weight (start-time fair queueing, counted in tasks).

1. A run that finds no free slot, or finds another run waiting, waits.
2. A returned slot is given in the next event-loop iteration, so that the run that has returned it may wait for it too.
3. The chosen run is promised the slot and notified. A promise that it does not take up goes to the next run.

A run that is alone is notified at once. That saves two event-loop iterations a task.

A run whose task waits for its capacity lends the slot of that task to the others. It reclaims the slot when the capacity is granted. More
slots may be used then than there are, by one for each such task: the executor queues its call. Without this, a few runs whose capacities
are full would keep the slots from all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.errors import WrongLoopError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator

    from headrace.pool.executor.executor import Executor


class Weighted(Protocol):
    """A capacity, as far as it says how slots are shared. One that is part of a tree has a `parent`."""

    @property
    def weight(self) -> float:
        """Its share among its siblings."""
        ...


class SlotUser(Protocol):
    """A run that uses the executor."""

    capacity: Weighted
    """The capacity of the run."""

    def notify(self) -> None:
        """Note that a slot may be free."""
        ...


class _Share:
    """A capacity whose runs share slots, or one run.

    Args:
        parent: The capacity above; None for the root of all.
        capacity: The capacity; None for a run, and for the root.
    """

    __slots__ = ("capacity", "chosen", "parent", "runs", "service", "waiting")

    def __init__(self, parent: _Share | None, capacity: Weighted | None = None) -> None:
        self.parent = parent
        self.capacity = capacity
        # The number of runs below it.
        self.runs = 0
        # The number of slots that it has had, divided by its weight.
        self.service = 0.0
        # The service of the child that was chosen last. A child that has waited for nothing has saved up nothing.
        self.chosen = 0.0
        # The children that wait for a slot, in FIFO order.
        self.waiting: dict[_Share, None] = {}

    @property
    def weight(self) -> float:
        return 1.0 if self.capacity is None else self.capacity.weight

    def path(self) -> Iterator[tuple[_Share, _Share]]:
        """Yield the nodes from this one up to the root, each with its parent."""
        share, parent = self, self.parent
        while parent is not None:
            yield share, parent
            share, parent = parent, parent.parent

    def begin_wait(self) -> None:
        """Join the wait queues of the nodes above."""
        for share, parent in self.path():
            parent.waiting[share] = None

    def end_wait(self) -> None:
        """Leave the wait queues of the nodes above, unless another run below them waits."""
        for share, parent in self.path():
            if share.waiting:
                return
            parent.waiting.pop(share, None)

    def charge(self) -> None:
        """Count a slot."""
        for share, parent in self.path():
            share.service = max(share.service, parent.chosen) + 1 / share.weight

    def choose(self) -> SlotUser:
        """Return the run below this node that gets the next slot."""
        child = min(self.waiting, key=lambda child: max(child.service, self.chosen))
        self.chosen = max(child.service, self.chosen)
        return child.choose()


class _RunShare(_Share):
    """A run.

    Args:
        parent: Its capacity. Runs with the same capacity share its slots evenly.
        user: The run.
    """

    __slots__ = ("_user", "lent")

    def __init__(self, parent: _Share, user: SlotUser) -> None:
        super().__init__(parent)
        self._user = user
        # The number of slots that the run has lent to the others.
        self.lent = 0

    def choose(self) -> SlotUser:
        """Return the run."""
        return self._user


class SharedSlots:
    """The slots of one executor, for all runs that use it.

    Args:
        executor: The executor.
        loop: The event loop of the runs.
    """

    def __init__(self, executor: Executor, loop: AbstractEventLoop) -> None:
        # A reference: while it exists, no other object has this identity.
        self._executor = executor
        self.loop: AbstractEventLoop = loop
        self.used: int = 0
        """The number of slots that runs have."""
        self._root = _Share(None)
        # The capacities of the runs and those above them, by identity: a capacity need not be hashable.
        self._capacities: dict[int, _Share] = {}
        self._runs: dict[SlotUser, _RunShare] = {}
        # The runs that wait for a slot.
        self._waiting: set[SlotUser] = set()
        # The runs that need a slot and cannot use the free ones, because they have lent as many.
        self._held_back: set[SlotUser] = set()
        # The chosen runs, for which free slots are kept.
        self._promised: set[SlotUser] = set()
        self._is_giving = False
        self._unwatch: Callable[[], object] | None = None

    @classmethod
    def of(cls, executor: Executor, loop: AbstractEventLoop) -> SharedSlots:
        """Return the slots of an executor, for another run.

        Raises:
            WrongLoopError: Runs of another event loop use the executor.
        """
        slots = _shared.get(id(executor))
        # A run whose event loop was closed never leaves.
        if slots is None or slots.loop.is_closed():
            return cls(executor, loop)
        if slots.loop is not loop:
            raise WrongLoopError(f"{executor!r}: runs of another event loop use this executor")
        return slots

    def join(self, user: SlotUser) -> None:
        """Add a run."""
        share = self._runs[user] = _RunShare(self._share_of(user.capacity), user)
        for _, parent in share.path():
            parent.runs += 1
        if len(self._runs) == 1:
            _shared[id(self._executor)] = self
            self._unwatch = self._executor.watch(self._on_change)

    def leave(self, user: SlotUser) -> None:
        """Remove a run."""
        self._end_wait(user)
        self._held_back.discard(user)
        self._promised.discard(user)
        for _, parent in self._runs.pop(user).path():
            parent.runs -= 1
            if not parent.runs and parent.capacity is not None:
                del self._capacities[id(parent.capacity)]
        self._forget()
        self._give_soon()

    def take(self, user: SlotUser) -> bool:
        """Take a slot, if one is free for this run; otherwise add the run to the wait queue."""
        self._held_back.discard(user)
        is_promised = self._take_promise(user)
        others_wait = len(self._waiting) > (user in self._waiting)
        may_use = self._has_free(self._runs[user].lent)
        if is_promised or (may_use and not others_wait):
            # It stays in the wait queue: another of its tasks may wait for a slot.
            self.used += 1
            if len(self._runs) > 1:
                self._runs[user].charge()
            return True
        if not may_use and self._has_free():
            self._end_wait(user)
            self._held_back.add(user)
            return False
        if user not in self._waiting:
            self._waiting.add(user)
            self._runs[user].begin_wait()
        if may_use:
            self._give_soon()
        return False

    def is_waiting(self, user: SlotUser) -> bool:
        """Return whether a run waits for a slot."""
        return user in self._waiting or user in self._held_back

    def put(self) -> None:
        """Return a slot."""
        self.used -= 1
        self._forget()
        self._release_held_back()
        if len(self._runs) == 1:
            self._give()
        else:
            self._give_soon()

    def lend(self, user: SlotUser) -> None:
        """Lend a slot of a run to the others."""
        self.used -= 1
        self._runs[user].lent += 1
        self._give_soon()

    def reclaim(self, user: SlotUser) -> None:
        """Use a slot again that a run has lent."""
        self._runs[user].lent -= 1
        self.used += 1

    def _on_change(self) -> None:
        """Give slots after a change of their number."""
        self._release_held_back()
        self._give_soon()

    def _release_held_back(self) -> None:
        """Add the runs that could not use the free slots to the wait queue."""
        for user in self._held_back:
            self._waiting.add(user)
            self._runs[user].begin_wait()
        self._held_back.clear()

    def _share_of(self, capacity: Weighted) -> _Share:
        share = self._capacities.get(id(capacity))
        if share is None:
            # A capacity of the user's own has a weight, and perhaps no parent.
            above: Weighted | None = getattr(capacity, "parent", None)
            parent = self._root if above is None else self._share_of(above)
            share = self._capacities[id(capacity)] = _Share(parent, capacity)
        return share

    def _end_wait(self, user: SlotUser) -> None:
        if user in self._waiting:
            self._waiting.remove(user)
            self._runs[user].end_wait()

    def _has_free(self, lent: int = 0) -> bool:
        """Return whether there is a slot for a run that has lent this number."""
        limit = self._executor.capabilities.slots
        return limit is None or self.used + len(self._promised) + lent < limit

    def _take_promise(self, user: SlotUser) -> bool:
        """Return whether a slot is kept for this run, and keep it no longer."""
        was_promised = user in self._promised
        self._promised.discard(user)
        return was_promised

    def _give_soon(self) -> None:
        """Give free slots in the next event-loop iteration: a slot is returned before its run waits for the next one."""
        if self._waiting and not self._is_giving and not self.loop.is_closed():
            self._is_giving = True
            self.loop.call_soon(self._give)

    def _give(self) -> None:
        """Notify the runs for which there is a slot."""
        self._is_giving = False
        while self._waiting and self._has_free():
            user = self._root.choose()
            self._end_wait(user)
            if len(self._runs) > 1:
                self._promised.add(user)
                # The run takes the slot at once, or in the next step of its feeder.
                self.loop.call_soon(self.loop.call_soon, self._end_promise, user)
            user.notify()

    def _end_promise(self, user: SlotUser) -> None:
        """Give the slot to the next run, if this one has not taken it: it does not need it any more."""
        if self._take_promise(user):
            self._give_soon()

    def _forget(self) -> None:
        """Forget the executor when no run uses it and no detached work has a slot."""
        if not self._runs and self._unwatch is not None:
            unwatch, self._unwatch = self._unwatch, None
            unwatch()
        if not self._runs and not self.used and _shared.get(id(self._executor)) is self:
            del _shared[id(self._executor)]


_shared: dict[int, SharedSlots] = {}
"""The slots of the executors that runs use, by the identity of the executor; an executor need not be hashable."""
