"""Run everything at once for 20 seconds; `make soak` sets HEADRACE_SOAK_SECONDS to ten minutes of it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.soak import Round

SECONDS = float(os.environ.get("HEADRACE_SOAK_SECONDS", "20"))
FIRST_SEED = int(os.environ.get("HEADRACE_SOAK_SEED", "1"))
WARM_UP = 10
"""The minimum number of rounds until everything that is created once exists.

Free lists grow to the largest need of any round, more and more slowly. So the baseline is taken after a third of the time as well.
"""


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("resident memory is read on Linux only")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.timeout(60 + 2 * SECONDS)
def test_everything_at_once_loses_and_leaks_nothing() -> None:
    start = time.monotonic()
    blocks = memory = rounds = 0
    is_warm = False
    threads = threading.active_count()
    while rounds < WARM_UP + 2 or not is_warm or time.monotonic() < start + SECONDS:
        round_ = Round(FIRST_SEED + rounds)
        print("seed", round_.seed, flush=True)
        round_.run()
        assert not list(round_.faults())
        assert threading.active_count() == threads
        del round_
        rounds += 1
        if not is_warm and rounds >= WARM_UP and time.monotonic() >= start + SECONDS / 3:
            is_warm = True
            gc.collect()
            blocks, memory = sys.getallocatedblocks(), resident()
    gc.collect()
    print(
        rounds,
        "rounds;",
        sys.getallocatedblocks() - blocks,
        "blocks,",
        resident() - memory,
        "bytes",
    )
    assert sys.getallocatedblocks() - blocks < 1_000
    assert resident() - memory < 8 * 2**20


@pytest.mark.parametrize("seed", [1, 2])
def test_a_small_round_loses_nothing(seed: int) -> None:
    # For `tests/test_debug.py`: in debug mode a full round takes a minute.
    round_ = Round(seed, each=5)
    round_.run()
    assert not list(round_.faults())
