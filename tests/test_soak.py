"""Everything at once, for 20 seconds; `make soak` sets HEADRACE_SOAK_SECONDS to ten minutes' worth of them."""

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
FIRST = int(os.environ.get("HEADRACE_SOAK_SEED", "1"))
WARM_UP = 10
"""Rounds until everything that is made once has been made, at least. What is kept for use again, to a bound, is as much as the most that
any round needed at once, which goes on growing, more and more slowly: so a third of the time is waited for as well."""


def resident() -> int:
    """The bytes of this process that are in memory."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("says what memory a process has on Linux only")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.timeout(60 + 2 * SECONDS)
def test_everything_at_once_loses_nothing_and_keeps_nothing() -> None:
    begin = time.monotonic()
    blocks = memory = rounds = 0
    is_warm = False
    threads = threading.active_count()
    while rounds < WARM_UP + 2 or not is_warm or time.monotonic() < begin + SECONDS:
        one = Round(FIRST + rounds)
        print("seed", one.seed, flush=True)
        one.run()
        assert not list(one.faults())
        assert threading.active_count() == threads
        del one
        rounds += 1
        if not is_warm and rounds >= WARM_UP and time.monotonic() >= begin + SECONDS / 3:
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
    # For `tests/test_debug.py`: in debug mode a whole round takes a minute.
    one = Round(seed, each=5)
    one.run()
    assert not list(one.faults())
