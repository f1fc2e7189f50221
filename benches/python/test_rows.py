"""Single rows under pytest-benchmark, which stores and compares runs. `make bench` measures the same rows for the tables.

    .venvs/peers-3.11/bin/python -m pytest benches/python -k 'pipeline and 3 and headrace'
    .venvs/peers-3.11/bin/python -m pytest benches/python -k queues --benchmark-save=before
    .venvs/peers-3.11/bin/python -m pytest benches/python -k queues --benchmark-compare

The libraries of a row are grouped with the code by hand. Here they share one process.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

import pytest
import rows
from measure import outcome, prepared
from row import Absent, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from row import Run

pytest.importorskip("pytest_benchmark", reason="`make bench` installs it with the peers")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the peers
    pytest.mark.timeout(300),
]

BY_HAND = "by hand"


def cases() -> Iterator[Any]:
    for module in pkgutil.iter_modules(rows.__path__):
        for row in importlib.import_module(f"rows.{module.name}").GROUP:
            if isinstance(row, Work):
                for library, run in {BY_HAND: row.by_hand, **row.libraries}.items():
                    name = f"{module.name}: {row.name}: {library}"
                    clock = pytest.mark.benchmark(timer=row.clock)
                    yield pytest.param(row, run, id=name, marks=clock)


@pytest.mark.parametrize(("row", "run"), list(cases()))
def test_row(row: Work, run: Run, benchmark: Any) -> None:
    items = row.items if row.is_whole else row.items // 10
    benchmark.group = f"{row.name}, {items:,} items"
    with asyncio.Runner(loop_factory=row.loop) as runner:

        def work_of(run: Run) -> Callable[[], Any]:
            return runner.run(prepared(run, items))

        def done(work: Callable[[], Any]) -> Any:
            return runner.run(outcome(work))

        try:
            found = done(work_of(run))
        except (ModuleNotFoundError, Absent) as reason:
            pytest.skip(f"absent: {reason}")
        assert found == done(work_of(row.by_hand))
        benchmark.pedantic(done, setup=lambda: ((work_of(run),), {}), rounds=5)
