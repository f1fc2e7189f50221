"""The job of the programs in this folder: an async function for each of some pages, twenty calls at once."""

from __future__ import annotations

import asyncio

pages = range(60)
calls: dict[int, int] = {}
"""The number of calls of each page."""
shown: list[str] = []


async def fetch(page: int) -> str:
    """Return the text of a page."""
    calls[page] = calls.get(page, 0) + 1
    await asyncio.sleep(0.001)  # stands for the network
    return f"text {page}"


async def flaky(page: int) -> str:
    """Fail the first call of each tenth page."""
    text = await fetch(page)
    if page % 10 == 7 and calls[page] == 1:
        raise ConnectionError(f"page {page} is down")
    return text


async def broken(page: int) -> str:
    """Fail for each tenth page."""
    if page % 10 == 7:
        raise ConnectionError(f"page {page} is down")
    return await fetch(page)


def show(text: str) -> None:
    """Use a result."""
    shown.append(text)
