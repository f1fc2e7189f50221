"""`SinkWriterObj`: writes items as lines of a file."""

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

# Made once: `json.dumps` would make one an item.
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

T_contra = TypeVar("T_contra", contravariant=True)


class SinkWriterObj(SinkObj[T_contra], stock=True):
    r"""Write each item as a line of a file, outside of the event loop's thread.

    Law: the file has one line for each item that was accepted: its JSON, compact and in UTF-8; with
    `format="text"` the item, a str, and a `\n`. The file is opened by the first push, or otherwise created by
    `return_()`, which returns when all lines are passed to the operating system and the file is closed.
    Order: of the pushes, including overlapping ones.
    Bound: `maxsize` unwritten bytes, or one longer line, and as much again of reusable memory. A push that finds no
    space waits.
    Cost: O(1) and the encoding per item, in the event loop's thread; one write for all lines that arrived during the
    previous write.
    Cancel safety: a push that is cancelled while it waits for space has written nothing. A cancelled `return_()`
    continues when it is called again; the file is closed in any case.

    An item that cannot be encoded raises at its push; no other item is affected. An error of the file (it cannot be
    opened, the disk is full) reaches the producer once, as an `OSError` with the name of the file, at the next push,
    whose item is not accepted, or at the end: lines accepted before that may be lost. Every later push raises
    `ClosedError`. `throw(error)` and dropping the object keep the accepted lines too. At the end of the process,
    accepted lines are written for at most one second. After a kill, only the last line may be truncated.

    Args:
        path: The file, as a str, bytes or `os.PathLike`; a relative path is resolved when the file is opened.
        format: `"jsonl"`, or `"text"`.
        append: Whether to append to an existing file, or to replace its content.
        maxsize: The maximum number of unwritten bytes, a positive integer.

    Raises:
        TypeError: `path`, `append` or `maxsize` is of another type; at a push: an item has no JSON
            form, or is no str.
        ValueError: `format` is neither of the two, `path` has a null character, or `maxsize` is not
            positive; at a push: an item has no JSON form (it is not finite, or holds itself), or none in
            UTF-8.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: Literal["jsonl", "text"] = "jsonl",  # noqa: A002 - what it is
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
        line = self._line(item)
        if self._waiting or not self._take(line, item):
            await self._wait_and_take(line, item)
        return IteratorResult(None, False)

    async def _wait_and_take(self, line: bytes, item: T_contra) -> None:
        """Wait for space, behind earlier waiters."""
        if not self._waiting:
            # A lock is bound to the event loop of its first waiter, and the next waiter may run on another one.
            self._lock = FairLock()
        self._waiting += 1
        try:
            async with self._lock:
                while not self._take(line, item):
                    await self._writer.room(len(line), self._maxsize)
        finally:
            self._waiting -= 1

    def next_nowait(self, item: T_contra) -> IteratorResult[Any]:
        """Accept one item without waiting.

        Raises:
            WouldBlock: There is no space for its line, or other pushes wait for space.
        """
        refuse_after_end(self, item)
        line = self._line(item)
        if self._waiting or not self._take(line, item):
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

    def _take(self, line: bytes, item: T_contra) -> bool:
        taken = self._writer.push(line, self._maxsize)
        if taken is None:
            raise ClosedError(
                f"{os.fsdecode(self._path)} is closed; the item is in this error's `item`",
                item=item,
            )
        return taken

    def _line(self, item: T_contra) -> bytes:
        if self._format == "jsonl":
            text = _COMPACT.encode(item)
        elif isinstance(item, str):
            text = item
        else:
            raise TypeError(f'an item must be a str with format="text", got {describe_value(item)}')
        return text.encode() + b"\n"
