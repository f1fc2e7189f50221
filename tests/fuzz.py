"""Random programs of pulls, pushes, buffers and capacities, each step of which is held against a model in plain Python.

A program is a seed, out of which a world is made (buffers, lines of producers into them, lines of consumers over them, a tree of
capacities that both use), and steps: what happens in that world. It runs on a virtual clock. After each step everything goes
on as far as it can; then the world must be as the model says:

- each item is in one place: with its producer, in its buffer, in its line within the line's bound, or given out once;
- of a buffer that is first in, first out, a line gives the items in the order in which they were pushed;
- nobody waits for what is there: a pull for an item, a push for room, a task for a slot;
- at each node of the tree just that is held which somebody holds.

`shrunk` drops steps for as long as the program still fails.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import NamedTuple

from tests.fuzz_world import World

__all__ = ["STEPS", "Program", "Step", "fails", "program", "run", "shrunk"]


class Step(NamedTuple):
    """What happens next: `a` says to whom, `b` how; both count round."""

    name: str
    a: int
    b: int


class Program(NamedTuple):
    """A world, and what happens in it. Its `repr` is Python that makes it again."""

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
"""What may happen, and how often in relation."""


def program(seed: int, length: int = 40) -> Program:
    """The program of this seed."""
    chance = random.Random(seed)
    names = chance.choices(tuple(STEPS), tuple(STEPS.values()), k=length)
    steps = tuple(Step(name, chance.randrange(12), chance.randrange(60)) for name in names)
    return Program(seed, steps)


def run(program: Program) -> None:
    """Runs it; raises what is wrong."""
    world = World(program.seed)
    with asyncio.Runner(loop_factory=world.clock) as runner:
        runner.run(world.run(program.steps))


def fails(program: Program) -> bool:
    """Whether it does. What a run that failed leaves undone is not worth a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(program)
        except Exception:
            return True
    return False


def shrunk(program: Program) -> Program:
    """The program without the steps that it does not need in order to fail: many at once at first, then one by one."""
    size = len(program.steps)
    while size:
        at = 0
        while at < len(program.steps):
            less = Program(program.seed, program.steps[:at] + program.steps[at + size :])
            if fails(less):
                program = less
            else:
                at += size
        size //= 2
    return program
