"""The hooks of `conftest.py`, which all tests rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SWALLOWS = """
def test_swallows():
    try:
        while True:
            pass
    except BaseException:
        pass


def test_passes():
    pass
"""


def test_swallowed_timeout_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(SWALLOWS, encoding="utf-8")
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "--timeout", "0.3"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ended only after its timeout of 0.3 s" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
