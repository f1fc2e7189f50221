"""How deep links may stand above one another that pull their source by an `await` of their own.

A line of stock links is one loop, however long. A branch of `tee`, a gate and a bridge are Python that awaits a pull of
its source: each of them is some frames on the stack, and beyond CPython's recursion limit a pull could neither be made nor
the stream closed. So it is refused where it is built, at a depth that leaves most of the stack to the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace._core import PullLink, upstream

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEEPEST", "nested", "nesting"]

DEEPEST = 100
"""How many may stand above one another."""


def nested(source: PullLink[Any], name: str) -> int:
    """The depth of a link over `source` that awaits its pulls.

    Args:
        source: What it pulls.
        name: What it is called in the message.

    Raises:
        ValueError: It would be one too many.
    """
    depth = nesting(source) + 1
    if depth > DEEPEST:
        raise ValueError(
            f"{name}: source must have at most {DEEPEST - 1} gates, bridges and branches of tee() above one another, "
            f"got {depth - 1}; put .prefetch(1) between them: what a task pulls counts anew"
        )
    return depth


def nesting(stream: PullLink[Any]) -> int:
    """How many links that await their source stand above one another in a stream, itself included."""
    deepest = 0
    streams = [stream]
    while streams:
        link: PullLink[Any] | None = streams.pop()
        while link is not None:
            depth = getattr(link, "_nesting", None)
            if depth is not None:
                deepest = max(deepest, depth)
                break
            # Those of a merge are polled in place, inside the pull of the merge.
            sources = cast("Iterable[Any]", getattr(link, "_merged", ()))
            streams += [source for source in sources if isinstance(source, PullLink)]
            link = upstream(link)
    return deepest
