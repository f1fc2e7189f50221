"""`SinkJournal`: which items are recorded, and when the file is opened and closed."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Journal, JournalError, JournalWarning, PullJournalObj, SinkJournal
from headrace.testing import Outcome, cancel_everywhere
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

LARGE = "x" * (2 << 20)
"""An item whose journal is opened in a thread."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.journal"


async def record(journal: Journal | Path, *items: Any, key: Any = None) -> None:
    async with SinkJournal(journal, key=key) as sink:
        for item in items:
            await sink.next(item)


def is_locked(path: Path) -> bool:
    try:
        Journal(path).open().close()
    except JournalError:
        return True
    return False


async def recorded(path: Path) -> list[Any]:
    return await PullJournalObj(path).collect()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def damage(path: Path, part: bytes) -> None:
    content = bytearray(content_of(path))
    content[content.index(part)] ^= 1
    path.write_bytes(content)


async def test_law_18_items_without_a_key_are_all_recorded(path: Path) -> None:
    await record(path, "a", "a")
    await record(path, "a", "b")
    assert await recorded(path) == ["a", "a", "a", "b"]


async def test_law_18_an_item_with_a_known_key_is_recorded_once(path: Path) -> None:
    await record(path, {"id": 1}, {"id": 2}, {"id": 1}, key=itemgetter("id"))
    await record(path, {"id": 2}, {"id": 3}, key=itemgetter("id"))
    assert await recorded(path) == [{"id": 1}, {"id": 2}, {"id": 3}]


async def test_law_18_an_item_is_recorded_beside_integer_keys(path: Path) -> None:
    await record(path, 1, 2, 5, key=int)
    await record(path, "a", "b", "c")
    assert await recorded(path) == [1, 2, 5, "a", "b", "c"]


async def test_law_18_an_item_is_recorded_after_skipped_damage(path: Path) -> None:
    await record(path, *(f"item {n}" for n in range(10)))
    damage(path, b"item 3")
    with pytest.warns(JournalWarning, match="are damaged and were skipped"):
        await record(Journal(path, damaged="skip"), "new")
    assert b"new" in content_of(path)


async def test_concurrent_first_pushes_open_a_large_journal_once(path: Path) -> None:
    await record(path, LARGE)
    async with SinkJournal[str](path) as sink:
        await asyncio.gather(sink.next("a"), sink.next("b"))
    assert await recorded(path) == [LARGE, "a", "b"]


async def test_law_8_cancelled_first_push_leaves_a_large_journal_closed(path: Path) -> None:
    await record(path, LARGE)

    async def case() -> AsyncGenerator[Coroutine[Any, Any, None], Outcome]:
        outcome = yield record(path, "a", key=str)
        assert outcome.cancelled or outcome.error is None
        # Its lock is free, at the latest when the thread that opens the file has ended.
        await eventually(lambda: not is_locked(path))

    await cancel_everywhere(case)
    assert await recorded(path) in ([LARGE, "a"], [LARGE])
