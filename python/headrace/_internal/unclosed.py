"""The warning about something that was dropped with tasks running."""

from __future__ import annotations

import warnings

__all__ = ["warn_unclosed"]


def warn_unclosed(thing: object) -> None:
    """Says which, and what to do the next time. To be called by its `__del__`."""
    warnings.warn(
        f"unclosed {thing!r}; leave it with `async with`, or await its aclose()",
        ResourceWarning,
        stacklevel=2,
        source=thing,
    )
