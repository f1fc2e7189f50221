"""How one leaves a stream early, in the way that its library offers."""

from __future__ import annotations

import contextlib
from typing import Any


@contextlib.asynccontextmanager
async def left_properly(stream: Any) -> Any:
    """The iterator of the stream, inside `async with` where the stream has it; or closed at the end, if it can be."""
    if hasattr(stream, "__aenter__"):
        async with stream as opened:
            yield aiter(opened)
        return
    iterator = aiter(stream)
    try:
        yield iterator
    finally:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
