"""The tables of pull operators and sources, and the test parameters made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sweep_item_rows import ITEM_ROWS
from tests.sweep_sources import SOURCES
from tests.sweep_stream_rows import STREAM_ROWS

if TYPE_CHECKING:
    from tests.sweep_types import Row, SourceKind


ROWS = [*ITEM_ROWS, *STREAM_ROWS]


class OddError(BaseException):
    """An error that is no `Exception`, like the outcomes of pytest."""


def as_params(table: list[Any]) -> list[Any]:
    return [pytest.param(entry, id=entry.name.replace(" ", "-")) for entry in table]


# Less than the timeout of a test, so that the sweep reports where it hangs. A run takes milliseconds.
TIMEOUT = 20.0


every_row = pytest.mark.parametrize("row", as_params([row for row in ROWS if not row.timed]))


def is_tested_with(row: Row, source: SourceKind) -> bool:
    """Return whether a row is tested with a source; of the twins it gets every third."""
    if row.timed or source.timed:
        return False
    if row.sources is not None:
        return source.name in row.sources
    twins = [other for other in SOURCES if other.is_twin]
    return not source.is_twin or (ROWS.index(row) + twins.index(source)) % 3 == 0


rows_and_sources = pytest.mark.parametrize(
    ("row", "source"),
    [
        pytest.param(row, source, id=f"{row.name}-{source.name}".replace(" ", "-"))
        for row in ROWS
        for source in SOURCES
        if is_tested_with(row, source)
    ],
)


ENTRIES: list[Row | SourceKind] = [*ROWS, *SOURCES]


every_source = pytest.mark.parametrize(
    "source", as_params([source for source in SOURCES if not source.timed])
)
