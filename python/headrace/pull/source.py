"""Where pull streams begin."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from headrace._core import CacheFeed, ForeignFeed, IterFeed, LinesFeed, StoreFeed, attach
from headrace._internal.reprs import describe_value, pluralize, short_repr
from headrace.pull.base import PullObj

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Source = Iterable[T_co] | AsyncIterable[T_co]
"""What is accepted wherever a stream is wanted: a pull object, or any iterable, sync or async."""


class SourceObj(PullObj[T_co], stock=True):
    """The base of sources of your own: override `pull_impl` as an async generator method."""


class SourceBufferObj(SourceObj[T], stock=True):
    """The items that it is given, and those that are added to its `buffer` while it runs.

    Law: `list(SourceBufferObj(items))` is `list(items)`; the buffer is empty then.
    Order: first in, first out; with `mode="lifo"`, last in, first out.
    Bound: what you put in; the items given are copied.
    Cost: O(1) per item.
    Cancel safety: a pull never waits here, so none can be cancelled.

    Args:
        items: Any iterable; it is copied at once.
        mode: `"fifo"` takes from the left end of the buffer, `"lifo"` from the right one.

    Raises:
        TypeError: `items` is not iterable.
        ValueError: `mode` is neither.
    """

    def __init__(self, items: Iterable[T] = (), *, mode: Literal["fifo", "lifo"] = "fifo") -> None:
        given = cast("object", mode)
        if given not in ("fifo", "lifo"):
            raise ValueError(f"mode must be 'fifo' or 'lifo', got {describe_value(given)}")
        self._buffer: deque[T] = deque(_checked(items, "items"))
        self._mode: Literal["fifo", "lifo"] = mode
        super().__init__(StoreFeed(self._buffer, from_right=mode == "lifo"))

    @property
    def buffer(self) -> deque[T]:
        """What has not been pulled yet, live: append to it to add items, also while the stream runs."""
        return self._buffer

    @property
    def mode(self) -> Literal["fifo", "lifo"]:
        """Which end of the buffer is taken from; fixed."""
        return self._mode

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self._buffer), "item")
        yield from super()._repr_parts()

    def peek(self) -> T:
        """The item that the next pull gives, without taking it.

        Raises:
            IndexError: The buffer is empty, as for `deque[0]`. Nothing is waited for here, so that
                `WouldBlock` would promise too much: a pull now would be the end.
        """
        if not self._buffer:
            raise IndexError("the buffer is empty: there is no next item to peek at")
        return self._buffer[0 if self._mode == "fifo" else -1]


class SourceCacheObj(SourceObj[T], stock=True):
    """One value, once a cycle.

    Law: the `value` of the moment of the pull, then the end; `restart()` gives the value of then,
    once more.
    Order: one item has none.
    Bound: the value.
    Cost: O(1).
    Cancel safety: a pull never waits here, so none can be cancelled.

    Args:
        value: Anything; exchange it at any time with `source.value = ...`.
    """

    def __init__(self, value: T) -> None:
        self._feed = CacheFeed(value)
        super().__init__(self._feed)

    @property
    def value(self) -> T:
        """What is given."""
        value: T = self._feed.value
        return value

    @value.setter
    def value(self, value: T) -> None:
        self._feed.value = value


class SourceIterObj(SourceObj[T_co], stock=True):
    """The items of any iterable, sync or async.

    Law: the items of the iterable, each once. Its iterator is made at the first pull.
    Order: the iterable's.
    Bound: nothing is held.
    Cost: O(1) per item, besides the iterable's own.
    Cancel safety: of a sync iterable no pull can be cancelled. An async generator is ended by a
    cancelled pull; the next pull then raises `SourceCancelledError`. What another async iterator
    does then is its own business.

    Args:
        iterable: The items. `restart()` takes a new iterator of it, and raises if it is an iterator
            itself.

    Raises:
        TypeError: It is not iterable.
    """

    def __init__(self, iterable: Source[T_co]) -> None:
        if isinstance(iterable, AsyncIterable):
            super().__init__(ForeignFeed(cast("Any", iterable)))
        else:
            super().__init__(IterFeed(_checked(iterable, "iterable")))
        self._kind = type(cast("object", iterable))

    def _repr_parts(self) -> Iterator[str]:
        yield f"of {self._kind.__name__}"
        yield from super()._repr_parts()


class SourceLinesObj(SourceObj[str], stock=True):
    r"""The lines of a text file, plain or gzipped, read by other threads than the loop's.

    Law: the lines that `open(path, encoding=...)` gives, each with its `\n` (`\r` and `\r\n` are
    made that); of a gzipped file, which is known by its first bytes, those of `gzip.open(path,
    "rt")`. The file is opened at the first pull, and closed at the end or when the stream is closed
    or dropped. Pipes and terminals are read too.
    Order: the file's.
    Bound: six batches of about 128 KiB, and three times the longest line, whatever the size of the
    file. A stream that nobody pulls keeps no thread.
    Cost: one string a line; reading, unzipping and checking the encoding need no GIL.
    Cancel safety: a cancelled pull loses no line.

    An error of the file is raised behind the lines before it, and ends the stream; `restart()` opens
    the file anew. A line that cannot be decoded costs that line: its error has a note with the
    number of the line, and the next pull gives the next one.

    Args:
        path: The file, as a str, bytes or `os.PathLike`; a relative one is looked up at the first
            pull.
        encoding: Any in which the bytes of `\n` and `\r` mean these and each line can be decoded
            by itself: UTF-8, `utf-8-sig`, ASCII, ISO 8859, Windows' code pages, Shift JIS, GB 18030
            and others; not UTF-16, UTF-32 or UTF-7.
        errors: As for `bytes.decode`: `"strict"`, `"replace"`, `"ignore"`, ...

    Raises:
        TypeError: `path`, `encoding` or `errors` is of another type.
        ValueError: `encoding` or `errors` is not known, or `encoding` is of another kind.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None:
        given = cast("object", path)
        if not isinstance(given, (str, bytes, os.PathLike)):
            raise TypeError(
                f"path must be a str, bytes or os.PathLike, got {describe_value(given)}"
            )
        super().__init__(LinesFeed(os.fsdecode(path), encoding, errors))
        self._path = path

    def _repr_parts(self) -> Iterator[str]:
        yield short_repr(os.fspath(self._path))
        yield from super()._repr_parts()

    @property
    def path(self) -> str | bytes | os.PathLike[str] | os.PathLike[bytes]:
        """The file, as it was given; fixed."""
        return self._path


def as_pull(source: Source[T]) -> PullObj[T]:
    """A pull object for any source: itself, if it is one.

    Raises:
        TypeError: It is not iterable.
    """
    if isinstance(source, PullObj):
        # It may be pulled by other means than a link: by a task.
        attach(source)
        return source
    if not isinstance(source, AsyncIterable):
        _checked(source, "source")
    return SourceIterObj(source)


def _checked(iterable: Iterable[T], parameter: str) -> Iterable[T]:
    # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
    kind = type(cast("object", iterable))
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        from headrace._internal.hints import for_source

        raise TypeError(
            f"{parameter} must be an iterable or an async iterable, got {describe_value(iterable)}{for_source(iterable)}"
        )
    return iterable
