"""Random programs of pulls, pushes, buffers and capacities. After each step the state is compared with a model in plain Python.

A program has a seed and steps. The seed determines a world: buffers, push pipelines of producers into them, pull pipelines over
them, and a tree of capacities that both use. A step is something that happens in that world. Programs run on a virtual clock. After
each step everything proceeds as far as it can. Then the world must agree with the model:

- each item is in one place: at its producer, in its buffer, in its pipeline within the pipeline's bound, or returned once;
- from a FIFO buffer, a pipeline returns the items in the order in which they were pushed;
- nothing waits for what is available: no pull for an item, no push for space, no task for a slot;
- at each node of the tree, exactly the amount is held that its tasks hold.

`shrunk` removes steps as long as the program still fails.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import NamedTuple

from tests.fuzz_world import World

__all__ = ["STEPS", "Program", "Step", "fails", "program", "run", "shrunk"]


class Step(NamedTuple):
    """An action of a program: `a` chooses its target, `b` its variant; both wrap around."""

    name: str
    a: int
    b: int


class Program(NamedTuple):
    """A world and the steps in it. Its `repr` is Python code that creates it."""

    seed: int
    steps: tuple[Step, ...]


STEPS = {
    "push": 12,
    "cancel_push": 2,
    "pull": 12,
    "cancel_pull": 3,
    "swap": 2,
    "end": 1,
    "close": 1,
    "restart": 1,
    "acquire": 3,
    "release": 3,
    "settle": 1,
    "resize": 2,
    "pause": 1,
    "wait": 3,
}
"""The possible steps, with their relative frequencies."""


def program(seed: int, length: int = 40) -> Program:
    """Return the program of a seed."""
    rng = random.Random(seed)
    names = rng.choices(tuple(STEPS), tuple(STEPS.values()), k=length)
    steps = tuple(Step(name, rng.randrange(12), rng.randrange(60)) for name in names)
    return Program(seed, steps)


def run(program: Program) -> None:
    """Run a program; raise an error if the world differs from the model."""
    world = World(program.seed)
    with asyncio.Runner(loop_factory=world.clock) as runner:
        runner.run(world.run(program.steps))


def fails(program: Program) -> bool:
    """Return whether a program fails. Warnings about unfinished tasks are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(program)
        except Exception:
            return True
    return False


def shrunk(program: Program) -> Program:
    """Return the program without the steps that are not needed for its failure: remove many at once, then one by one."""
    size = len(program.steps)
    while size:
        at = 0
        while at < len(program.steps):
            shorter = Program(program.seed, program.steps[:at] + program.steps[at + size :])
            if fails(shorter):
                program = shorter
            else:
                at += size
        size //= 2
    return program
