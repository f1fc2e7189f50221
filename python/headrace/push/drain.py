"""A stream into a sink: what `PullObj.drain_to` does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from headrace import _core
from headrace.errors import NOTHING, ClosedError, WouldBlock
from headrace.push.base import acceptors, cancelling, says_done

if TYPE_CHECKING:
    from headrace._core import PullLink
    from headrace.abc import PushProtocol

__all__ = ["drain"]


async def drain(stream: PullLink[Any], sink: PushProtocol[Any], *, forward_close: bool) -> None:
    """Pushes every item of `stream` into `sink`; see `PullObj.drain_to`."""
    before = cancelling()
    async for item in stream:
        try:
            result = await sink.next(item)
        except BaseException as error:
            if _is_refusal(error, item) or (
                isinstance(error, (asyncio.CancelledError, GeneratorExit))
                and (isinstance(error, GeneratorExit) or cancelling() > before)
                and not acceptors(error)
            ):
                _core.hand_back(stream, item)
            raise
        if says_done(result):
            break
    if forward_close:
        await sink.return_()


def _is_refusal(error: BaseException, item: Any) -> bool:
    """Whether an error gives back this very item."""
    return (
        isinstance(error, (ClosedError, WouldBlock))
        and (error.item if error.has_item else NOTHING) is item
        and not acceptors(error)
    )
