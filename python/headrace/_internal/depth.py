"""The limit on nested links that await their source. `tee()`, `PullGateObj`, `SourceCapacityObj` and the bridges call `check_depth`.

A pipeline of stock links is one loop, however long. A branch of `tee`, a gate, a `limit` and a bridge are Python code that awaits a
pull of the source, and so each adds frames to the stack. Beyond CPython's recursion limit a pull could not start and the
stream could not be closed. So construction fails at a depth that leaves most of the stack to the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace._core import PullLink, upstream

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 100
"""How many links that await their source may be nested."""


def check_depth(source: PullLink[Any], name: str) -> int:
    """Return the depth of a new link over `source` that awaits its pulls.

    Args:
        source: The source of the new link.
        name: The new link, for the message.

    Raises:
        ValueError: The depth would exceed `MAX_DEPTH`.
    """
    above = depth(source)
    if above >= MAX_DEPTH:
        raise ValueError(
            f"{name}: source must have at most {MAX_DEPTH - 1} gates, limits, bridges and branches of tee() above one another, "
            f"got {above}; put .prefetch(1) between them: what a task pulls counts anew"
        )
    return above + 1


def depth(stream: PullLink[Any]) -> int:
    """Return how many links of a stream that await their source are nested, this one included."""
    deepest = 0
    streams = [stream]
    while streams:
        link: PullLink[Any] | None = streams.pop()
        while link is not None:
            known = getattr(link, "_depth", None)
            if known is not None:
                deepest = max(deepest, known)
                break
            # The sources of a merge are polled inside the pull of the merge.
            sources = cast("Iterable[Any]", getattr(link, "_merged", ()))
            streams += [source for source in sources if isinstance(source, PullLink)]
            link = upstream(link)
    return deepest
