"""`headrace map --journal` under `kill -9` at random moments: nothing that was paid for is paid again or lost.

`make soak` sets the factor HEADRACE_SOAK; at 10, it is 2,000 records and 50 kills.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.journal_runs import Folder, assert_survives_kills

if TYPE_CHECKING:
    from pathlib import Path

FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))
RECORDS = 300 if FACTOR < 10 else 2_000
KILLS = 12 if FACTOR < 10 else 50
"""For each of the three orders of the output."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Records with duplicates in three groups, most of which are the largest group's."""
    folder = Folder(tmp_path)
    groups = ["large", "large", "large", "small", "tiny"]
    folder.write(
        *(
            {"n": number % (RECORDS * 9 // 10), "group": groups[number % 7 % 5], "takes": 0.01}
            for number in range(RECORDS)
        )
    )
    return folder


@pytest.fixture
def generator() -> random.Random:
    """A generator whose seed is printed."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


pytestmark = pytest.mark.timeout(60 if FACTOR < 10 else 1200)


def test_law_18_kills_ordered(folder: Folder, generator: random.Random) -> None:
    assert_survives_kills(folder, generator, KILLS, "on_loop")
    assert folder.output() == folder.undisturbed()


def test_law_18_kills_unordered(folder: Folder, generator: random.Random) -> None:
    assert_survives_kills(folder, generator, KILLS, "in_thread", "--unordered")
    assert Counter(folder.output()) == Counter(folder.undisturbed())


def test_law_18_kills_grouped(folder: Folder, generator: random.Random) -> None:
    options = ["--group-by", "group", "--durability", "process"]
    assert_survives_kills(folder, generator, KILLS, "on_loop", *options)
    groups: defaultdict[str, list[bytes]] = defaultdict(list)
    wanted: defaultdict[str, list[bytes]] = defaultdict(list)
    for lines, by_group in ((folder.output(), groups), (folder.undisturbed(), wanted)):
        for line in lines:
            by_group[line.decode().rpartition(":")[2]].append(line)
    assert groups == wanted
