"""Errors of every pull operator: bad items cost only themselves, and bad arguments are named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from headrace import SKIP, OrderError, PullObj, SourceIterObj, SourceLinesObj
from tests.support import wrong
from tests.sweep_sources import DIRECTORY, written
from tests.sweep_tables import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("sweep_files")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        pytest.param(*bad, id=f"{row.name}-{number}".replace(" ", "-"))
        for row in ENTRIES
        for number, bad in enumerate(row.bad)
    ],
)
def test_law_14_error_names_parameter_and_value(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "kind", "message", "remaining"),
    [
        pytest.param(
            lambda: SourceIterObj([0, 2, 2, 1]).in_order(lambda n: n),
            OrderError,
            "index 2 .* was given to an item before",
            [0, 1, 2],
            id="an index that repeats",
        ),
        pytest.param(
            lambda: SourceIterObj([5, 1, 2, 0]).in_order(lambda n: n, maxsize=2),
            OrderError,
            "index 2 .* too early: 2 items wait for 0 already, and maxsize is 2",
            [0, 1, 5],
            id="an index beyond maxsize",
        ),
        pytest.param(
            lambda: SourceIterObj([1, 0, -2]).in_order(lambda n: n),
            OrderError,
            "index -2 .* below the first one, 0",
            [0, 1],
            id="an index below the first",
        ),
        pytest.param(
            lambda: SourceIterObj([1, 2]).flat_map(lambda n: wrong(n if n == 1 else [n])),
            TypeError,
            r"got 1 \(int\)\nraised by transform of PullFlatMapObj: item 1",
            [2],
            id="flat_map of a non-iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([[0], wrong(1), [2]]).flatten(),
            TypeError,
            r"got 1 \(int\)\nraised by item of PullFlattenObj: item 1",
            [0, 2],
            id="flatten of a non-iterable",
        ),
        pytest.param(
            lambda: SourceIterObj([0, [1], 2]).dedupe(),
            TypeError,
            r"unhashable .*\nraised by key of PullDedupeObj: item \[1\]",
            [0, 2],
            id="dedupe of an unhashable item",
        ),
        pytest.param(
            lambda: SourceLinesObj(written(b"a\n\xff\nc\n")).map(str.strip),
            UnicodeDecodeError,
            "\nline 2 of ",
            ["a", "c"],
            id="a line that is not UTF-8",
        ),
        pytest.param(
            lambda: SourceLinesObj(DIRECTORY[0] / "vanished").map(str.strip),
            FileNotFoundError,
            "vanished",
            [],
            id="a missing file",
        ),
    ],
)
async def test_law_3_bad_item_costs_only_itself(
    make: Callable[[], PullObj[Any]], kind: type[Exception], message: str, remaining: list[Any]
) -> None:
    errors: list[Exception] = []

    def handler(error: Exception) -> Any:
        errors.append(error)
        return SKIP

    assert await make().catch(handler).collect() == remaining
    (error,) = errors
    assert isinstance(error, kind)
    assert re.search(message, "\n".join([str(error), *getattr(error, "__notes__", ())]))
