"""`SinkWriterObj`: lines into a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from headrace._core import IteratorResult, LineWriter
from headrace._internal.fair_lock import FairLock
from headrace._internal.reprs import describe_value, short_repr
from headrace.errors import ClosedError, WouldBlock
from headrace.push.base import refuse_after_end
from headrace.push.sink import SinkObj

if TYPE_CHECKING:
    from collections.abc import Iterator

# Made once: `json.dumps` would make one an item.
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

T_contra = TypeVar("T_contra", contravariant=True)


class SinkWriterObj(SinkObj[T_contra], stock=True):
    r"""Writes each item as a line of a file, by another thread than the loop's.

    Law: the file has one line for each item that was accepted: its JSON, compact and in UTF-8; with
    `format="text"` the item, a str, and a `\n`. The file is opened by the first push, or else made by
    `return_()`, which returns when everything is with the operating system and the file is closed.
    Order: of the pushes, also of those that overlap.
    Bound: `maxsize` bytes that are not written yet, or one line that is longer; and as much again of
    memory to be used anew. A push that finds no room waits.
    Cost: O(1) and the encoding an item, on the loop's thread; one write for all lines that came during
    the one before.
    Cancel safety: a push that is cancelled while it waits for room has written nothing. A `return_()`
    that is cancelled goes on when it is called again; the file is closed all the same.

    An item that cannot be encoded raises at its push, and costs that item alone. An error of the file
    (it cannot be opened, the disk is full) reaches the producer once, as an `OSError` with the name of
    the file, at the next push, whose item is not accepted, or at the end: lines that were accepted by then
    may be lost. Every later push raises `ClosedError`. `throw(error)` keeps what was accepted too, and so
    does an object that is dropped. At the end of the process what was accepted is written for a second at
    most. After a kill, only the last line may be cut.

    Args:
        path: The file, as a str, bytes or `os.PathLike`; a relative one is looked up when it is opened.
        format: `"jsonl"`, or `"text"`.
        append: Whether lines go to the end of a file that is there, or in the place of what it holds.
        maxsize: How many bytes may wait to be written, a positive integer.

    Raises:
        TypeError: `path`, `append` or `maxsize` is of another type; at a push: an item has no JSON
            form, or is no str.
        ValueError: `format` is neither of the two, `path` has a null character, or `maxsize` is not
            positive; at a push: an item has no JSON form (it is not finite, or holds itself), or none in
            UTF-8.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        format: Literal["jsonl", "text"] = "jsonl",  # noqa: A002 - what it is
        append: bool = False,
        maxsize: int = 1 << 20,
    ) -> None:
        given = cast("object", path)
        if not isinstance(given, (str, bytes, os.PathLike)):
            raise TypeError(
                f"path must be a str, bytes or os.PathLike, got {describe_value(given)}"
            )
        if format not in ("jsonl", "text"):
            raise ValueError(f'format must be "jsonl" or "text", got {format!r}')
        if not isinstance(cast("object", append), bool):
            raise TypeError(f"append must be a bool, got {describe_value(append)}")
        super().__init__()
        self.maxsize = maxsize
        self._path = path
        self._format: Literal["jsonl", "text"] = format
        self._writer = LineWriter(os.fsdecode(path), append)
        self._turn = FairLock()
        self._waiting = 0

    @property
    def path(self) -> str | bytes | os.PathLike[str] | os.PathLike[bytes]:
        """The file, as it was given; fixed."""
        return self._path

    @property
    def format(self) -> Literal["jsonl", "text"]:
        """What an item is as a line; fixed."""
        return self._format

    @property
    def maxsize(self) -> int:
        """How many bytes may wait to be written, live."""
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
        """Takes one item, when there is room for its line."""
        line = self._line(item)
        if self._waiting or not self._take(line, item):
            await self._take_in_turn(line, item)
        return IteratorResult(None, False)

    async def _take_in_turn(self, line: bytes, item: T_contra) -> None:
        """Waits for room, behind those who wait already."""
        if not self._waiting:
            # A lock belongs to the loop where it was first waited for, and the next to wait may be on another.
            self._turn = FairLock()
        self._waiting += 1
        try:
            async with self._turn:
                while not self._take(line, item):
                    await self._writer.room(len(line), self._maxsize)
        finally:
            self._waiting -= 1

    def next_nowait(self, item: T_contra) -> IteratorResult[Any]:
        """Takes one item.

        Raises:
            WouldBlock: There is no room for its line, or others wait for room.
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
        """Writes everything, and closes the file."""
        await self._writer.close(True)

    async def throw_impl(self, error: BaseException) -> None:
        """Writes what was accepted, and closes the file."""
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
