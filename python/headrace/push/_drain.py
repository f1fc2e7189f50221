"""`drain`: the implementation of `PullObj.drain_to`, which pushes every item of a stream into a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headrace._core as _core
from headrace._core import Delivery
from headrace._internal.sentinels import NOTHING
from headrace._internal.tasks import cancelling, is_cancellation
from headrace.errors import ClosedError, WouldBlock
from headrace.push.base import is_done_result

if TYPE_CHECKING:
    from headrace._core import PullLink
    from headrace.abc import PushProtocol


async def drain(stream: PullLink[Any], sink: PushProtocol[Any], *, forward_close: bool) -> None:
    """Push every item of `stream` into `sink`; see `PullObj.drain_to`."""
    before = cancelling()
    delivery = Delivery()
    async for item in stream:
        try:
            result = await delivery.push(sink, item)
        except BaseException as error:
            if not delivery.accepted_by and (
                is_cancellation(error, before) or _is_refusal(error, item)
            ):
                _core.return_item(stream, item)
            raise
        if is_done_result(result):
            break
    if forward_close:
        await sink.return_()


def _is_refusal(error: BaseException, item: Any) -> bool:
    """Return whether an error returns this item to the caller."""
    return (
        isinstance(error, (ClosedError, WouldBlock))
        and (error.item if error.has_item else NOTHING) is item
    )
