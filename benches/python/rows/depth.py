"""The maximum depth of a pipeline: whether three items pass many stages of `x + 1`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from row import Probe

from rows.pipeline import LIBRARIES, by_hand

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages import Kinds

ITEMS = 3


async def through(run: Callable[[int, Kinds], Any], kinds: Kinds) -> str:
    """Whether the items pass all stages."""
    outcome = run(ITEMS, kinds)
    if not isinstance(outcome, int):
        outcome = await outcome
    expected = sum(x + len(kinds) for x in range(ITEMS))
    return "yes" if outcome == expected else f"wrong: {outcome} for {expected}"


GROUP = [
    Probe(
        f"{count:,} stages",
        "yes",
        {
            library: partial(through, run, ["map"] * count)
            for library, run in {"by hand": by_hand, **LIBRARIES}.items()
        },
    )
    for count in (100, 1_000, 10_000)
]
