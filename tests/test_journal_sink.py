"""`SinkJournal`: which items are recorded, and when the file is opened and closed."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


class FastThread(ThreadPoolExecutor):
    """A thread that has called each function before `submit` returns."""

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        future = super().submit(*arguments, **options)
        wait([future])
        return future


async def test_concurrent_first_pushes_are_recorded_in_the_order_of_their_arrival(
    path: Path,
) -> None:
    await record(path, LARGE)

    async def push(*items: str) -> None:
        for item in items:
            await sink.next(item)

    with FastThread(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        async with SinkJournal[str](path) as sink:
            await asyncio.gather(push("a", "d"), push("b", "e"), push("c"))
    assert await recorded(path) == [LARGE, "a", "b", "c", "d", "e"]


async def test_law_2_a_push_cancelled_while_another_opens_the_file_is_not_recorded(
    path: Path,
) -> None:
    await record(path, LARGE)
    async with SinkJournal[str](path) as sink:
        pushes = [asyncio.create_task(sink.next(item)) for item in "abc"]
        await asyncio.sleep(0)
        pushes[1].cancel()
        _, cancelled, _ = await asyncio.gather(*pushes, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert await recorded(path) == [LARGE, "a", "c"]


async def test_law_8_the_end_waits_for_pushes_that_open_the_file(path: Path) -> None:
    await record(path, LARGE)
    journal = Journal(path)
    sink = SinkJournal[str](journal)
    pushes = [asyncio.create_task(sink.next(item)) for item in "ab"]
    await asyncio.sleep(0)
    await sink.return_()
    assert not journal.is_open
    await asyncio.gather(*pushes)
    assert await recorded(path) == [LARGE, "a", "b"]


async def test_a_cancelled_end_continues_when_it_is_called_again(path: Path) -> None:
    await record(path, LARGE)
    journal = Journal(path)
    sink = SinkJournal[str](journal)
    push, end = asyncio.create_task(sink.next("a")), asyncio.create_task(sink.return_())
    await asyncio.sleep(0)
    end.cancel()
    await asyncio.wait([end])
    assert end.cancelled()
    await sink.return_()
    assert not journal.is_open
    await push
    assert await recorded(path) == [LARGE, "a"]


async def test_law_8_cancelled_first_push_leaves_a_large_journal_closed(path: Path) -> None:
    await record(path, LARGE)

    async def case() -> AsyncGenerator[Coroutine[Any, Any, None], Outcome]:
        outcome = yield record(path, "a", key=str)
        assert outcome.cancelled or outcome.error is None
        # The only thread is free when it has opened the file, which is then closed on the event loop.
        await asyncio.to_thread(int)
        await eventually(lambda: not is_locked(path))

    with ThreadPoolExecutor(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        await cancel_everywhere(case)
    assert await recorded(path) in ([LARGE, "a"], [LARGE])
