"""The spend of budgets in a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace import Budget, CapacitySource, Journal, PullMapPoolObj
from headrace._core import JournalFile

if TYPE_CHECKING:
    from pathlib import Path


class Failing:
    """A function that fails while `fails` is true."""

    fails = True

    async def __call__(self, item: int) -> int:
        if self.fails:
            raise ValueError(item)
        return item


async def spend(path: Path, capacity: CapacitySource, fn: Failing, *, key: str = "") -> None:
    """Call the function for one item, which is charged 10 tokens."""
    journal = Journal(path, retry_failed=True)
    stream = PullMapPoolObj(
        [1], fn, capacity, cost={"slots": 1, "tokens": 10}, key=lambda _: key, journal=journal
    )
    async with stream:
        try:
            await anext(stream)
        except ValueError:
            assert fn.fails


async def test_a_compacted_journal_has_the_spend_of_all_attempts(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    fn = Failing()
    capacity = CapacitySource({"slots": 1, "tokens": Budget(100)})
    await spend(path, capacity, fn)
    await spend(path, capacity, fn)
    fn.fails = False
    await spend(path, capacity, fn)
    with Journal(path) as journal:
        assert journal.spend == {"tokens": 30}
    for _ in range(2):
        JournalFile.compact(str(path), False)
        with Journal(path) as journal:
            assert journal.spend == {"tokens": 30}
            assert journal.ended == 1


async def test_the_spend_of_a_shared_budget_is_restored_once(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    fn = Failing()
    fn.fails = False
    root = CapacitySource({"slots": 2, "tokens": Budget(100)})
    children = [CapacitySource({"slots": 1}, root) for _ in range(2)]
    for number, child in enumerate(children):
        await spend(path, child, fn, key=str(number))
    assert root.available["tokens"] == 80
    fresh = CapacitySource({"slots": 2, "tokens": Budget(100)})
    for number in range(2):
        await spend(path, CapacitySource({"slots": 1}, fresh), fn, key=str(number))
    assert fresh.available["tokens"] == 80
