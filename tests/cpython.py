"""CPython's own tests, run on our replacements for asyncio's classes.

The interpreter's `test` package is imported again with our names in place of asyncio's; nothing of it is copied.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import pytest

__all__ = ["cases_of", "load_with", "run_case"]


def cases_of(module: str, *kinds: str) -> list[str]:
    """Return the test cases of these classes, or of all, as `Class.test`; none without a `test` package."""
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return []
    return sorted(
        f"{kind.__name__}.{case}"
        for kind in vars(loaded).values()
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase)
        if not kinds or kind.__name__ in kinds
        for case in unittest.defaultTestLoader.getTestCaseNames(kind)
    )


def load_with(
    module: str, names: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Import the test module with these names set in asyncio, until the patch is undone."""
    for name, value in names.items():
        monkeypatch.setattr(asyncio, name, value, raising=False)
    # Removed from `sys.modules` together with the patch, so that the next import loads it again.
    monkeypatch.delitem(sys.modules, module, raising=False)
    loaded = importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    return loaded


def run_case(loaded: ModuleType, case: str) -> None:
    """Run one case and fail if it fails."""
    name, _, method = case.partition(".")
    result = unittest.TestResult()
    getattr(loaded, name)(method).run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1
