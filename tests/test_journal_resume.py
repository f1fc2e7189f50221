"""A resumed run: the failures that it counts, the code that it compares, and the lock of a file with two names."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Journal, JournalError, JournalWarning, PullMapPoolObj, RunStopped, amap
from headrace._core import JournalFile
from tests.support import collect

if TYPE_CHECKING:
    from pathlib import Path


async def outcomes(stream: Any) -> list[str]:
    """Return the names of the errors of a stream, and of its results."""
    found: list[str] = []
    while True:
        try:
            found.append(type(await anext(stream)).__name__)
        except StopAsyncIteration:
            return found
        except Exception as error:
            found.append(type(error).__name__)


def names_in(path: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(one.name for one in path.iterdir())


@pytest.mark.parametrize("most", [3, 0.2])
async def test_replayed_failures_do_not_stop_a_run(tmp_path: Path, most: float) -> None:
    """A run that its failures have stopped would otherwise be stopped again at once."""
    is_down = True

    async def fn(item: int) -> int:
        if is_down:
            raise ValueError(item)
        return item

    def stream(count: int) -> Any:
        journal = Journal(tmp_path / "run.journal", accept_version=True)
        return PullMapPoolObj(range(count), fn, 1, ordered=True, max_failures=most, journal=journal)

    async with stream(100) as first:
        failed = (await outcomes(first)).count("ValueError")
        assert failed == (4 if most == 3 else 20)
    is_down = False
    async with stream(100) as second:
        assert await outcomes(second) == ["RecordedError"] * failed + ["int"] * (100 - failed)
    # Neither do the replayed results make room for more failures.
    is_down = True
    async with stream(200) as third:
        assert (await outcomes(third)).count("ValueError") == failed


async def test_values_that_a_run_changes_are_no_version(tmp_path: Path) -> None:
    made: list[int] = []
    total = 0

    async def fn(item: int, seen: list[int] = []) -> int:  # noqa: B006  # it is what is tested
        nonlocal total
        total += item
        made.append(item)
        seen.append(item)
        return item

    class Client:
        async def ask(self, item: int) -> int:
            made.append(item)
            return item

    for number, one in enumerate((fn, Client().ask)):
        made.clear()
        path = tmp_path / f"{number}.journal"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for count in (3, 5):
                items = range(count)
                assert await amap(one, items, limit=1, journal=path).collect() == [*items]
        assert made == [*range(5)]


async def test_other_function_in_a_closure_is_another_version(tmp_path: Path) -> None:
    def decorated(inner: Any) -> Any:
        async def fn(item: int) -> Any:
            return inner(item)

        return fn

    path = tmp_path / "run.journal"
    await amap(decorated(lambda item: item + 1), [1], limit=1, journal=path).collect()
    with pytest.warns(JournalWarning, match="other code"):
        await amap(decorated(lambda item: item + 2), [1], limit=1, journal=path).collect()


async def test_symbolic_link_to_a_journal(tmp_path: Path) -> None:
    path, link = tmp_path / "there" / "run.journal", tmp_path / "link.journal"
    path.parent.mkdir()
    await amap(_same, range(5), limit=1, journal=path).collect()
    link.symlink_to(path)
    # It has one lock.
    with Journal(path), pytest.raises(JournalError, match=r"lock|use"):
        Journal(link).open()
    before, after = JournalFile.compact(str(link), False)
    assert after < before
    assert link.is_symlink()
    assert path.stat().st_size == after
    assert names_in(tmp_path) == ["link.journal", "there"]
    assert await collect(amap(_same, range(5), limit=1, journal=link)) == [*range(5)]


async def _same(item: int) -> int:
    return item


async def test_stop_by_failures_is_raised(tmp_path: Path) -> None:
    async def fn(item: int) -> int:
        raise ValueError(item)

    stream = PullMapPoolObj(range(9), fn, 1, max_failures=1, journal=tmp_path / "run.journal")
    async with stream:
        assert (await outcomes(stream))[-1] == RunStopped.__name__
