"""The pool under each pair of its options: sweeps of cancellations and of ends, a model of the events, and a soak.

`make soak` sets the factor HEADRACE_SOAK, which repeats the random runs.
"""

from __future__ import annotations

import asyncio
import os
import random
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from headrace.testing import Outcome, cancel_everywhere
from tests.pairwise import pairs_of, pairwise_rows
from tests.pool_rows import OPTIONS, ROWS, Program, allow_errors_while_closing, row_id
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from tests.pairwise import Row

ROUNDS = int(3 * float(os.environ.get("HEADRACE_SOAK", "1")))

every_row = pytest.mark.parametrize("row", ROWS, ids=row_id)


def test_rows_contain_each_pair_of_values() -> None:
    rows = [{name: OPTIONS[name].index(row[name]) for name in OPTIONS} for row in ROWS]
    missing = {
        pair
        for pair in pairs_of(OPTIONS)
        if not any(all(row[name] == index for name, index in pair) for row in rows)
    }
    assert not missing
    assert rows == [
        {name: OPTIONS[name].index(row[name]) for name in OPTIONS} for row in pairwise_rows(OPTIONS)
    ]
    # A table of all combinations would have about half a million rows.
    assert len(rows) < 40


@every_row
async def test_each_item_has_its_last_event(row: Row) -> None:
    program = Program(row)
    await program.finishes()
    program.check_idle()
    if row["on_error"] == "continue":
        program.check_events(is_whole=True)
        assert len(program.events) == 2
    else:
        program.check_events()
    program.check_called()


async def _reads(program: Program) -> None:
    await program.reads()


async def _drains(program: Program) -> None:
    program.events.append([])
    async with program.runner.run_tasks() as progress:
        await program.read(progress, 1)
        # Read meanwhile: tasks that yield wait for the consumer.
        async with asyncio.TaskGroup() as group:
            group.create_task(program.drain())
            await program.read(progress)


async def _aborts(program: Program) -> None:
    program.events.append([])
    async with program.runner.run_tasks() as progress:
        await program.read(progress, 1)
        await program.runner.abort()
        await program.read(progress)


async def _pauses(program: Program) -> None:
    program.events.append([])
    async with program.runner.run_tasks() as progress:
        await program.read(progress, 1)
        try:
            program.runner.pause()
            await yield_to_loop(3)
        finally:
            program.runner.resume()
        await program.read(progress)


async def _leaves(program: Program) -> None:
    program.events.append([])
    async with program.runner.run_tasks() as progress:
        await program.read(progress, 2)


@every_row
@pytest.mark.parametrize(
    "consume", [_reads, _drains, _aborts, _pauses, _leaves], ids=lambda fn: fn.__name__
)
async def test_law_4_run_cancelled_anywhere_under_any_options(
    row: Row, consume: Callable[[Program], Coroutine[Any, Any, None]]
) -> None:
    allow_errors_while_closing()

    async def case() -> AsyncGenerator[Coroutine[Any, Any, None], Outcome]:
        program = Program(row)
        outcome = yield consume(program)
        assert outcome.error is None
        program.check_idle()
        calls = program.called.total()
        await yield_to_loop(3)
        assert program.called.total() == calls, "a task was called after the end of its run"
        program.check_events()
        # The tasks that were not called are called now. The sweep checks that no asyncio task is left.
        await program.finishes()
        program.check_idle()
        program.check_events()
        program.check_called()

    assert await cancel_everywhere(case) > 0


async def _abort(program: Program) -> None:
    await program.runner.abort()


async def _drain(program: Program) -> None:
    await program.drain()


async def _cancel_each(program: Program) -> None:
    """Cancel all tasks that have ids, in any state."""
    for task_id in range(1, len(program.items) + 1):
        program.runner.cancel(task_id)
    program.uncalled = set(range(len(program.items)))


@every_row
@pytest.mark.parametrize("end", [_abort, _drain, _cancel_each], ids=lambda fn: fn.__name__)
async def test_run_ended_at_any_iteration_reports_each_called_task(
    row: Row, end: Callable[[Program], Coroutine[Any, Any, None]]
) -> None:
    allow_errors_while_closing()
    for iterations in count(1):
        program = Program(row)
        reader = asyncio.ensure_future(program.reads())
        await yield_to_loop(iterations)
        is_over = reader.done()
        await end(program)
        calls = program.called.total()
        await reader
        if end is not _cancel_each:
            assert program.called.total() == calls, "a task was called after the end of its run"
        program.check_idle()
        program.check_events()
        [events] = program.events
        ended = [event.attempt for event in events if event.finished is not None]
        assert len([attempt for attempt in ended if attempt]) == len(program.called)
        if end is not _cancel_each:
            await program.finishes()
            program.check_idle()
            program.check_called()
        if is_over:
            assert iterations > 1
            return


@every_row
@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_interrupted_runs_under_any_options(row: Row) -> None:
    """Cancel the consumer of a run at random, or leave it, until nothing is left."""
    allow_errors_while_closing()
    seed = row_id(row)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        program = Program(row)
        while True:
            most = rng.choice((1, 3, None))
            program.events.append([])

            async def consume(program: Program = program, most: int | None = most) -> None:
                async with program.runner.run_tasks() as progress:
                    await program.read(progress, most)

            consumer = asyncio.ensure_future(consume())
            is_interrupted = rng.random() < 0.7
            if is_interrupted:
                await yield_to_loop(rng.randrange(20))
                for _ in range(rng.randint(1, 2)):
                    consumer.cancel()
                    await asyncio.sleep(0)
            await asyncio.wait([consumer])
            program.check_idle()
            assert len(asyncio.all_tasks()) == 1
            if not is_interrupted and most is None and not program.events[-1]:
                break
        program.check_events()
        program.check_called()
