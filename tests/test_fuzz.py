"""Random programs against a model. HEADRACE_FUZZ_SECONDS sets the duration (10 s), HEADRACE_FUZZ_SEED the first seed (1)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

import tests.fuzz_world
from headrace import PushPullBufferObj, SourceObj
from tests.fuzz import fails, program, run, shrunk

T = TypeVar("T")

if TYPE_CHECKING:
    from tests.fuzz_model import Item

SECONDS = float(os.environ.get("HEADRACE_FUZZ_SECONDS", "10"))
FIRST = int(os.environ.get("HEADRACE_FUZZ_SEED", "1"))


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_random_programs_match_their_model() -> None:
    end = time.monotonic() + SECONDS
    seed = FIRST
    while seed == FIRST or time.monotonic() < end:
        if fails(program(seed)):
            smallest = shrunk(program(seed))
            print("seed", seed)
            print(f"from tests.fuzz import Program, Step, run\n\nrun({smallest!r})")
            run(smallest)
            pytest.fail(f"the program of seed {seed} failed once, and then no more")
        seed += 1
    print(seed - FIRST, "programs")


class Losing(PushPullBufferObj[T]):
    """A buffer whose source loses an item."""

    @property
    def source(self) -> SourceObj[T]:
        lossy = super().source.filter(lambda item: cast("Item", item)[1] != 3)
        return cast("SourceObj[T]", lossy)


class Repeating(PushPullBufferObj[T]):
    """A buffer whose source repeats an item."""

    @property
    def source(self) -> SourceObj[T]:
        twice: Any = super().source.flat_map(
            lambda item: [item] * (1 + (cast("Item", item)[1] == 2))
        )
        return cast("SourceObj[T]", twice)


@pytest.mark.parametrize("broken", [Losing, Repeating])
def test_fault_is_found_and_its_program_shrunk(
    broken: type[PushPullBufferObj[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tests.fuzz_world, "PushPullBufferObj", broken)
    seed = next(seed for seed in range(1, 100) if fails(program(seed)))
    smallest = shrunk(program(seed))
    print(smallest)
    assert fails(smallest)
    # Items are numbered by their pushes. Reaching the item needs that many pushes, and few other steps.
    number = 3 if broken is Losing else 2
    assert [step.name for step in smallest.steps].count("push") == number + 1
    assert len(smallest.steps) <= number + 3
