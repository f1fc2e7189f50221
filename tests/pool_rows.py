"""Rows of options of a pool and its tasks, and a program that runs under any of them and knows what must come out."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace import (
    CapacitySource,
    Final,
    HierarchicalTaskPoolRunner,
    OutcomeListener,
    Rate,
    Retry,
    SourceObj,
    Task,
)
from headrace.pool import CancelSupport, Capabilities, LoopExecutor
from tests.pairwise import Row, pairwise_rows
from tests.pool_support import ERROR, FINAL, INTERMEDIATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.pool_support import Envelope

__all__ = ["OPTIONS", "ROWS", "Program", "allow_errors_while_closing", "row_id"]

LONG = 3600.0
"""Seconds that never pass."""
AT_ONCE = 1e-9
"""Seconds that have passed in the next event-loop iteration."""

OPTIONS: dict[str, Sequence[Any]] = {
    "kind": ["bare", "async", "generator", "plain", "thread"],
    "cost": [1, 2, {"slots": 1}, {"slots": 1, "calls": 1}],
    "retry": [None, "runner", "task"],
    "timeout": [None, "runner", "task"],
    "queue_timeout": [None, "long", "short"],
    "source": ["list", "listener", "slow"],
    "max_buffered": [1, 3, 1024],
    "ordered": [False, True],
    "lookahead": [1, 3],
    "priority": [False, True],
    "key": [False, True],
    "hooks": [False, True],
    "on_error": ["continue", "stop"],
    "executor": [None, "loop", "slots"],
}
"""The values of each option. `Program` gives them their meaning."""

ROWS = pairwise_rows(OPTIONS)

RETURNS, RAISES, RECOVERS, OVERRUNS, CANCELS, EXPIRES, NO_TASK = range(7)
"""The items of a program, named by how they end."""


def row_id(row: Row) -> str:
    """Return a short name of a row: the values that are not the first of their option."""
    named = [
        f"{name}={'+'.join(row[name]) if isinstance(row[name], dict) else row[name]}"
        for name, values in OPTIONS.items()
        if row[name] != values[0]
    ]
    return ",".join([row["kind"], *named[row["kind"] != "bare" :]])


def allow_errors_while_closing() -> None:
    """Ignore the reports of tasks that raise while their run is being closed, whose events nothing reads."""
    loop = asyncio.get_running_loop()
    report = loop.get_exception_handler()
    assert report is not None

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        is_expected = isinstance(context.get("exception"), (ValueError, TimeoutError))
        if not (is_expected and "raised while its run was being closed" in context["message"]):
            report(loop, context)

    loop.set_exception_handler(handle)


class Items(OutcomeListener, SourceObj[Any]):
    """A source that records the outcomes of its items; a slow one suspends before each item."""

    def __init__(self, items: list[Any], *, is_slow: bool) -> None:
        super().__init__()
        self._left = list(enumerate(items))
        self._numbers = {id(item): number for number, item in self._left}
        self._is_slow = is_slow
        self.outcomes: Counter[int] = Counter()

    async def __anext__(self) -> Any:
        if self._is_slow:
            await asyncio.sleep(0)
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)[1]

    def completed(self, item: Any, value: Any) -> None:
        self.outcomes[self._numbers[id(item)]] += 1

    def failed(self, item: Any, error: BaseException) -> None:
        self.outcomes[self._numbers[id(item)]] += 1


class OneSlot(LoopExecutor):
    """An executor that takes one task at a time."""

    capabilities = Capabilities(
        cancel_support=CancelSupport.COOPERATIVE, streaming=True, remote=False, slots=1
    )


class Program:
    """One runner and a task of each ending, under the options of a row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.root = CapacitySource(3)
        has_rate = isinstance(row["cost"], dict) and "calls" in row["cost"]
        self.capacity = CapacitySource(
            {"slots": 2, "calls": Rate(1e9, 1)} if has_rate else 2, self.root
        )
        self.running = 0
        self.called: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.hooks: Counter[int] = Counter()
        self.faults: list[str] = []
        self.events: list[list[Envelope]] = []
        """The events of each run."""
        self.uncalled: set[int] = set()
        """The items that another part of a test took away."""
        self.items: list[Any] = [self._item(index) for index in range(NO_TASK)] + ["no task"]
        self._retry = Retry(2, on=ValueError, backoff=0)
        options: dict[str, Any] = {
            name: row[name] for name in ("ordered", "lookahead", "max_buffered", "on_error")
        }
        if row["ordered"]:
            options["window"] = 3
        if row["retry"] == "runner":
            options["retry"] = self._retry
        if row["timeout"] == "runner":
            options["timeout"] = LONG
        if row["executor"]:
            options["executor"] = LoopExecutor() if row["executor"] == "loop" else OneSlot()
        source = (
            self.items
            if row["source"] == "list"
            else Items(self.items, is_slow=row["source"] == "slow")
        )
        self.source = source
        self.runner = HierarchicalTaskPoolRunner(source, self.capacity, **options)

    # The tasks.

    def _item(self, index: int) -> Any:
        row = self.row
        if row["kind"] == "bare" and not self._has_options(index):
            return partial(self.run_async, index)
        options: dict[str, Any] = {"cost": row["cost"]}
        if row["retry"] == "task":
            options["retry"] = Retry(2, on=ValueError, backoff=0)
        if row["timeout"] == "task":
            options["timeout"] = LONG
        if index == OVERRUNS and self._overruns():
            options["timeout"] = AT_ONCE
        if row["queue_timeout"]:
            is_short = index == EXPIRES and row["queue_timeout"] == "short"
            options["queue_timeout"] = AT_ONCE if is_short else LONG
        if row["priority"]:
            options["priority"] = index % 3
        if row["key"]:
            options["key"] = ("item", index)
        if row["hooks"]:
            options["on_complete"] = partial(self._hook, index)
            options["on_error"] = partial(self._hook, index)
        if row["kind"] == "thread":
            options["thread"] = True
        calls: dict[str, Callable[[int], object]] = {
            "generator": self.run_generator,
            "plain": self.run_plain,
            "thread": self.run_thread,
        }
        return Task(calls.get(row["kind"], self.run_async), index, **options)

    def _has_options(self, index: int) -> bool:
        """Whether an item is a `Task`: of bare callables, only every second one is."""
        return self.row["kind"] != "bare" or index % 2 == 1

    def _overruns(self) -> bool:
        return self.row["timeout"] is not None and self.row["kind"] not in ("plain", "thread")

    def _retries(self, index: int) -> bool:
        return self.row["retry"] == "runner" or (
            self.row["retry"] == "task" and self._has_options(index)
        )

    def _hook(self, index: int, _: object) -> None:
        self.hooks[index] += 1

    def _enter(self, index: int) -> None:
        self.called[index] += 1
        self.running += 1
        held, limit = (
            slots["slots"] if not isinstance(slots, (int, float)) else slots
            for slots in (self.capacity.held, self.capacity.limit)
        )
        if not self.running <= held <= limit:
            self.faults.append(f"{self.running} running with {held} of {limit} held")

    def _leave(self, index: int) -> None:
        self.ended[index] += 1
        self.running -= 1

    def _end(self, index: int) -> int:
        if index == RAISES or (index == RECOVERS and self.called[index] == 1):
            raise ValueError(index)
        if index == CANCELS:
            raise asyncio.CancelledError(index)
        return index

    async def run_async(self, index: int) -> int:
        self._enter(index)
        try:
            for _ in range(index % 3):
                await asyncio.sleep(0)
            if index == OVERRUNS and self._overruns():
                await asyncio.Event().wait()
            return self._end(index)
        finally:
            self._leave(index)

    async def run_generator(self, index: int) -> AsyncIterator[Any]:
        self._enter(index)
        try:
            for step in range(index % 3):
                yield index, step
                await asyncio.sleep(0)
            if index == OVERRUNS and self._overruns():
                await asyncio.Event().wait()
            yield Final(self._end(index))
        finally:
            self._leave(index)

    def run_plain(self, index: int) -> int:
        self._enter(index)
        self._leave(index)
        return self._end(index)

    def run_thread(self, index: int) -> int:
        # Not counted as running: the counts of a thread are not exact.
        self.called[index] += 1
        self.ended[index] += 1
        return self._end(index)

    # The model.

    def expected(self, index: int) -> set[tuple[str, int]]:
        """Return the possible last events of an item: the kind or the error, and the number of calls."""
        if index == NO_TASK:
            return {("TypeError", 0)}
        if index == RAISES:
            return {("ValueError", 3 if self._retries(index) else 1)}
        if index == RECOVERS:
            return {("value", 2)} if self._retries(index) else {("ValueError", 1)}
        if index == OVERRUNS and self._overruns():
            return {("TimeoutError", 1)}
        if index == CANCELS:
            return {("CancelledError", 1)}
        if index == EXPIRES and self.row["queue_timeout"] == "short":
            return {("value", 1), ("TimeoutError", 0)}
        return {("value", 1)}

    # The checks.

    def check_events(self, *, is_whole: bool = False) -> None:
        """Check the events of all runs; with `is_whole`, each item must have its last event."""
        for events in self.events:
            ended: set[int] = set()
            for event in events:
                assert event.task_id not in ended, "an event after the last one of its task"
                if event.type is not INTERMEDIATE:
                    ended.add(event.task_id)
            if self.row["ordered"]:
                ids = [event.task_id for event in events]
                assert ids == sorted(ids)
        lasts = Counter(
            (type(event.error).__name__ if event.type is ERROR else "value", event.attempt)
            for events in self.events
            for event in events
            if event.type is not INTERMEDIATE
        )
        assert max(self.hooks.values(), default=0) <= 1
        if not is_whole:
            return
        for index in range(len(self.items)):
            found = next((end for end in self.expected(index) if lasts[end]), None)
            assert found is not None, f"no last event of item {index} in {lasts}"
            lasts[found] -= 1
            assert self.called[index] == found[1]
        assert not +lasts, f"events of no item: {+lasts}"
        values = [event.value for events in self.events for event in events if event.type is FINAL]
        assert len(set(values)) == len(values)
        if self.row["hooks"]:
            having = [index for index in range(NO_TASK) if self._has_options(index)]
            assert self.hooks == Counter(having)

    def check_idle(self) -> None:
        """Check that nothing runs, and that everything was released."""
        assert not self.faults
        assert (self.root.held, self.root.waiting, self.running) == (0, 0, 0)
        assert self.called == self.ended

    def check_called(self) -> None:
        """Check that each task was called, unless it was taken away, and that it had one outcome."""
        missing = set(range(NO_TASK)) - set(self.called)
        allowed = {EXPIRES} if self.row["queue_timeout"] == "short" else set[int]()
        assert missing <= allowed | self.uncalled
        assert all(
            calls <= max(calls for _, calls in self.expected(index))
            for index, calls in self.called.items()
        )
        if isinstance(self.source, Items):
            settled = set(range(len(self.items))) - self.uncalled
            assert self.source.outcomes == Counter(settled)

    # The consumers.

    async def read(self, progress: AsyncIterator[Envelope], most: int | None = None) -> None:
        """Read the events of a run, which were not read before, or some of them."""
        events = self.events[-1]
        while most is None or len(events) < most:
            try:
                events.append(await anext(progress))
            except StopAsyncIteration:
                return

    async def reads(self) -> None:
        """Run to the end, and record the events."""
        self.events.append([])
        async with self.runner.run_tasks() as progress:
            await self.read(progress)

    async def finishes(self) -> None:
        """Run until nothing is left; a run that stops at an error is followed by another."""
        while True:
            await self.reads()
            if not self.events[-1]:
                return

    async def drain(self) -> None:
        """Drain the runner, and note the items that it returns."""
        returned = {id(item) for item in await self.runner.drain()}
        self.uncalled |= {i for i, item in enumerate(self.items) if id(item) in returned}
