"""Leaving a stream early in the way that its library offers."""

from __future__ import annotations

import contextlib
from typing import Any


@contextlib.asynccontextmanager
async def left_properly(stream: Any) -> Any:
    """Yield the iterator of the stream, inside its `async with` if it has one; otherwise close it at the end if possible."""
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
