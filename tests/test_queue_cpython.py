"""CPython's own tests of `asyncio.Queue`, run on ours. Excluded are tests that read private fields or the exact text of `repr`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from headrace import queue
from tests.cpython import cases_of, load_with, run_case

if TYPE_CHECKING:
    from types import ModuleType

MODULE = "test.test_asyncio.test_queues"

# By test name, in every class that has a test of that name.
EXCLUDED = {
    "test_repr": "the exact text",
    "test_str": "the exact text",
    "test_format": "calls _format() for the exact text",
    "test_get_with_putters": "appends to _putters",
    "test_cancelled_getters_not_being_held_in_self_getters": "reads _getters",
    "test_cancelled_puts_not_being_held_in_self_putters": "reads _putters",
}
CASES = cases_of(MODULE)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_with(MODULE, {name: getattr(queue, name) for name in queue.__all__}, monkeypatch)


@pytest.mark.skipif(not CASES, reason="this interpreter has no `test` package")
@pytest.mark.parametrize("case", CASES or ["none"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cpython_case(case: str, loaded: ModuleType) -> None:
    if skip_reason := EXCLUDED.get(case.partition(".")[2]):
        pytest.skip(skip_reason)
    run_case(loaded, case)


@pytest.mark.skipif(not CASES, reason="this interpreter has no `test` package")
def test_every_exclusion_exists() -> None:
    existing = {case.partition(".")[2] for case in CASES}
    # Newer versions add cases; those of the oldest version are in all.
    assert EXCLUDED.keys() - existing <= {"test_format"}


@pytest.mark.skipif(sys.version_info[:2] != (3, 13) or not CASES, reason="the figures are 3.13's")
def test_most_cases_are_public() -> None:
    public = [case for case in CASES if case.partition(".")[2] not in EXCLUDED]
    assert (len(public), len(CASES)) == (48, 59)
