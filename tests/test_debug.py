"""Run a part of the tests in debug mode; `make test-debug` runs all of them in it.

In debug mode CPython's allocator detects memory that is used after it was freed or written past its end. The interpreter
checks exceptions and encodings, and asyncio refuses calls from the wrong thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SELECTED = [
    "tests/test_awaitable.py",
    "tests/test_capacity_leases.py",
    "tests/test_soak.py::test_a_small_round_loses_nothing",
]


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.flags.dev_mode, reason="all tests run in debug mode")
def test_selected_tests_pass_in_debug_mode() -> None:
    completed = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:cacheprovider", *SELECTED],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONMALLOC": "debug", "PYTHONASYNCIODEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    print(completed.stdout[-10_000:], completed.stderr[-10_000:])
    assert completed.returncode == 0
    assert " passed" in completed.stdout
