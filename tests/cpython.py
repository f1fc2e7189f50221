"""CPython's own tests, run on things of ours that stand in for asyncio's.

The interpreter's `test` package is loaded anew with our names in place of asyncio's; nothing of it is copied.
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
    """The names of the cases of those classes, or of all, each as `Class.test`; none without a `test` package."""
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
    """The test module, as it is with these names in asyncio, for as long as the patch holds."""
    for name, value in names.items():
        monkeypatch.setattr(asyncio, name, value, raising=False)
    # Forgotten again with the patch, so that whoever comes next loads what is there then.
    monkeypatch.delitem(sys.modules, module, raising=False)
    loaded = importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    return loaded


def run_case(loaded: ModuleType, case: str) -> None:
    """Runs one case, and fails as it does."""
    name, _, method = case.partition(".")
    result = unittest.TestResult()
    getattr(loaded, name)(method).run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1
