"""A part of the tests in debug mode, which `make test-debug` runs all of them in.

There CPython's allocator finds memory that is used after it was freed or written past its end, the interpreter checks what it
is told about exceptions and encodings, and asyncio refuses calls from the wrong thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PART = [
    "tests/test_awaitable.py",
    "tests/test_capacity_leases.py",
    "tests/test_soak.py::test_a_small_round_loses_nothing",
]


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.flags.dev_mode, reason="all tests run in debug mode")
def test_a_part_of_the_tests_passes_in_debug_mode() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:cacheprovider", *PART],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONMALLOC": "debug", "PYTHONASYNCIODEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    print(ran.stdout[-10_000:], ran.stderr[-10_000:])
    assert ran.returncode == 0
    assert " passed" in ran.stdout
