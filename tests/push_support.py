"""Helpers for the tests of push operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace import PushObj, SinkCollectObj

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace import (
        PushObj,
    )


async def push_all(pipeline: PushObj[Any], items: Iterable[Any]) -> list[bool]:
    return [(await pipeline.next(item)).done for item in items]


def collectors(count: int) -> list[SinkCollectObj[Any]]:
    return [SinkCollectObj() for _ in range(count)]
