"""CPython's own tests of `asyncio.Queue`, run on ours.

The interpreter's `test` package is loaded anew with the names of `headrace.queue` in place of asyncio's. What is left
out reads private fields, or the text of `repr`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest
from typing import TYPE_CHECKING

import pytest

from headrace import queue

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "test.test_asyncio.test_queues"

# By name, and for all classes that have a case of that name.
EXCLUDED = {
    "test_repr": "the exact text",
    "test_str": "the exact text",
    "test_format": "calls _format() for the exact text",
    "test_get_with_putters": "appends to _putters",
    "test_cancelled_getters_not_being_held_in_self_getters": "reads _getters",
    "test_cancelled_puts_not_being_held_in_self_putters": "reads _putters",
}


def _load() -> list[str]:
    """The names of all cases, each as `Class.test`; none if the interpreter has no `test` package."""
    try:
        module = importlib.import_module(MODULE)
    except ImportError:
        return []
    names: list[str] = []
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase):
            cases = unittest.defaultTestLoader.getTestCaseNames(kind)
            names += [f"{kind.__name__}.{case}" for case in cases]
    return sorted(names)


CASES = _load()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The test module, as it is with our names in asyncio."""
    for name in queue.__all__:
        monkeypatch.setattr(asyncio, name, getattr(queue, name), raising=False)
    sys.modules.pop(MODULE, None)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


@pytest.mark.skipif(not CASES, reason="this interpreter has no `test` package")
@pytest.mark.parametrize("case", CASES or ["none"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cpython_says(case: str, loaded: object) -> None:
    name, _, method = case.partition(".")
    if method in EXCLUDED:
        pytest.skip(EXCLUDED[method])
    result = unittest.TestResult()
    getattr(loaded, name)(method).run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1


@pytest.mark.skipif(not CASES, reason="this interpreter has no `test` package")
def test_no_exclusion_is_out_of_date() -> None:
    there = {case.partition(".")[2] for case in CASES}
    # Cases come with versions; those of the oldest are in all.
    assert EXCLUDED.keys() - there <= {"test_format"}


@pytest.mark.skipif(sys.version_info[:2] != (3, 13) or not CASES, reason="the figures are 3.13's")
def test_most_cases_are_public() -> None:
    public = [case for case in CASES if case.partition(".")[2] not in EXCLUDED]
    assert (len(public), len(CASES)) == (48, 59)
