"""`SinkWriterObj`: a sink, created by the user, that writes each item as a line of a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from headrace._core import IteratorResult, LineWriter
from headrace._internal.fair_lock import FairLock
from headrace._internal.reprs import describe_value, short_repr
from headrace._internal.validate import check_flag, check_path
from headrace.errors import ClosedError, WouldBlock
from headrace.push.base import refuse_after_end
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace._internal.validate import Path

# Shared: `json.dumps` would create an encoder for each item.
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

T_contra = TypeVar("T_contra", contravariant=True)


class SinkWriterObj(SinkObj[T_contra], stock=True):
    r"""Write each item as a line of a file, outside of the event loop's thread.

    Law: the file has one line for each accepted item: its compact JSON in UTF-8, or with `format="text"` the str itself.
    The first push opens the file; without a push, `return_()` creates it. `return_()` returns when all lines are passed
    to the operating system and the file is closed.
    Order: that of the pushes, including overlapping ones.
    Bound: `maxsize` unwritten bytes, or one longer line, and as much again of reusable memory. A push that finds no
    space waits.
    Cost: O(1) and the encoding per item, in the event loop's thread; one write for all lines that arrived during the
    previous write.
    Cancel safety: a push that is cancelled while it waits for space has written nothing. A cancelled `return_()`
    continues when it is called again; the file is closed in any case.

    An item that cannot be encoded raises at its push; no other item is affected. If the file cannot be opened or
    written, the next push or the end raises an `OSError` with the name of the file, once; that push accepts no item, and
    lines accepted before may be lost. Every later push raises `ClosedError`. `throw(error)` and dropping the object keep
    the accepted lines too. At the end of the process, accepted lines are written for at most one second. After a kill,
    only the last line may be truncated.

    Args:
        path: The file, as a str, bytes or `os.PathLike`; a relative path is resolved when the file is opened.
        format: `"jsonl"`, or `"text"`.
        append: Whether to append to an existing file, or to replace its content.
        maxsize: The maximum number of unwritten bytes, a positive integer.

    Raises:
        TypeError: `path`, `append` or `maxsize` is of another type; at a push: an item has no JSON form, or is not a str
            with `format="text"`.
        ValueError: `format` is neither of the two, `path` has a null character, or `maxsize` is not positive; at a push:
            an item contains itself, a number that is not finite, or a character that UTF-8 cannot encode.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: Literal["jsonl", "text"] = "jsonl",  # noqa: A002 - the format of a line
        append: bool = False,
        maxsize: int = 1 << 20,
    ) -> None:
        name = check_path("path", path)
        if format not in ("jsonl", "text"):
            raise ValueError(f'format must be "jsonl" or "text", got {format!r}')
        check_flag("append", append)
        super().__init__()
        self.maxsize = maxsize
        self._path = path
        self._format: Literal["jsonl", "text"] = format
        self._writer = LineWriter(name, append)
        self._lock = FairLock()
        self._waiting = 0

    @property
    def path(self) -> Path:
        """The file, as given; fixed."""
        return self._path

    @property
    def format(self) -> Literal["jsonl", "text"]:
        """The format of a line; fixed."""
        return self._format

    @property
    def maxsize(self) -> int:
        """The maximum number of unwritten bytes, live."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        got = f"got {describe_value(maxsize)}"
        if not isinstance(cast("object", maxsize), int) or isinstance(maxsize, bool):
            raise TypeError(f"maxsize must be an integer, {got}")
        if not 1 <= maxsize < 1 << 63:
            raise ValueError(f"maxsize must be at least 1 and below 2**63, {got}")
        self._maxsize = maxsize

    def _repr_parts(self) -> Iterator[str]:
        yield short_repr(os.fspath(self._path))
        yield from super()._repr_parts()

    async def next_impl(self, item: T_contra) -> IteratorResult[Any]:
        """Accept one item when there is space for its line."""
        line = self._encode(item)
        if self._waiting or not self._push(line, item):
            await self._wait_and_push(line, item)
        return IteratorResult(None, False)

    async def _wait_and_push(self, line: bytes, item: T_contra) -> None:
        """Wait for space, behind earlier waiters."""
        if not self._waiting:
            # A lock is bound to the event loop of its first waiter, and the next waiter may run on another one.
            self._lock = FairLock()
        self._waiting += 1
        try:
            async with self._lock:
                while not self._push(line, item):
                    await self._writer.room(len(line), self._maxsize)
        finally:
            self._waiting -= 1

    def next_nowait(self, item: T_contra) -> IteratorResult[Any]:
        """Accept one item without waiting.

        Raises:
            WouldBlock: There is no space for its line, or other pushes wait for space.
        """
        refuse_after_end(self, item)
        line = self._encode(item)
        if self._waiting or not self._push(line, item):
            raise WouldBlock(
                "too much waits to be written; await next(item), or give a larger maxsize",
                item=item,
            )
        return IteratorResult(None, False)

    async def return_impl(self, value: Any) -> None:
        """Write all lines and close the file."""
        await self._writer.close(True)

    async def throw_impl(self, error: BaseException) -> None:
        """Write the accepted lines and close the file."""
        await self._writer.close(False)

    def _push(self, line: bytes, item: T_contra) -> bool:
        """Pass a line to the writer's thread. Return whether there was space for it."""
        is_accepted = self._writer.push(line, self._maxsize)
        if is_accepted is None:
            raise ClosedError(
                f"{os.fsdecode(self._path)} is closed; the item is in this error's `item`",
                item=item,
            )
        return is_accepted

    def _encode(self, item: T_contra) -> bytes:
        """Return the line of an item."""
        if self._format == "jsonl":
            text = _COMPACT.encode(item)
        elif isinstance(item, str):
            text = item
        else:
            raise TypeError(f'an item must be a str with format="text", got {describe_value(item)}')
        return text.encode() + b"\n"
