"""Sources of pull streams: in memory, one value, any iterable, and the lines of a file.

Every operator calls `as_pull` with its `source` argument.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from headrace._core import AsyncIterSource, DequeSource, IterSource, LinesSource, OnceSource, attach
from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.reprs import describe_value, pluralize, short_repr
from headrace._internal.validate import check_path
from headrace.pull.base import PullObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Protocol

    from headrace._internal.validate import Path

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Source = Iterable[T_co] | AsyncIterable[T_co]
"""The type of every `source` argument: a pull object or an iterable, sync or async."""


if TYPE_CHECKING:

    class _ClosableIterator(AsyncIterator[T_co], Protocol[T_co]):
        async def aclose(self) -> None: ...


class Restartable(AsyncIterable[T_co]):
    """An iterable over one iterator, as the origin of a stream that can restart: an iterator itself runs only once."""

    def __init__(self, iterator: _ClosableIterator[T_co]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Return the iterator."""
        return self._iterator

    async def aclose(self) -> None:
        """Close the source of a stream that was never pulled."""
        await self._iterator.aclose()


class SourceObj(PullObj[T_co], stock=True):
    """The base of sources of your own: override `pull_impl` as an async generator method."""


class SourceBufferObj(SourceObj[T], stock=True):
    """The given items, and those added to its `buffer` while it runs.

    Law: `list(SourceBufferObj(items))` is `list(items)`; the buffer is empty afterwards.
    Order: first in, first out; with `mode="lifo"`, last in, first out.
    Bound: the items in the buffer; the given items are copied.
    Cost: O(1) per item.
    Cancel safety: pulls never wait here and cannot be cancelled.

    Args:
        items: Any iterable; it is copied immediately.
        mode: `"fifo"` takes from the left end of the buffer, `"lifo"` from the right end.

    Raises:
        TypeError: `items` is not iterable.
        ValueError: `mode` is neither of the two.
    """

    def __init__(self, items: Iterable[T] = (), *, mode: Literal["fifo", "lifo"] = "fifo") -> None:
        given = cast("object", mode)
        if given not in ("fifo", "lifo"):
            raise ValueError(f"mode must be 'fifo' or 'lifo', got {describe_value(given)}")
        self._buffer: deque[T] = deque(_checked(items, "items"))
        self._mode: Literal["fifo", "lifo"] = mode
        super().__init__(DequeSource(self._buffer, from_right=mode == "lifo"))

    @property
    def buffer(self) -> deque[T]:
        """The items not yet pulled, live: append to it to add items, also while the stream runs."""
        return self._buffer

    @property
    def mode(self) -> Literal["fifo", "lifo"]:
        """The end of the buffer that pulls take from; fixed."""
        return self._mode

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(len(self._buffer), "item")
        yield from super()._repr_parts()

    def peek(self) -> T:
        """Return the item that the next pull yields, without removing it.

        Raises:
            IndexError: The buffer is empty, as for `deque[0]`. Not `WouldBlock`: a pull would not wait but end the
                stream.
        """
        if not self._buffer:
            raise IndexError("the buffer is empty: there is no next item to peek at")
        return self._buffer[0 if self._mode == "fifo" else -1]


class SourceCacheObj(SourceObj[T], stock=True):
    """One value, once per cycle.

    Law: the current `value` at the pull, then the end; after `restart()`, the then current value once more.
    Order: there is only one item.
    Bound: the value.
    Cost: O(1).
    Cancel safety: pulls never wait here and cannot be cancelled.

    Args:
        value: Any object; replace it at any time with `source.value = ...`.
    """

    value: KernelProperty[T, T] = KernelProperty("The value, live.")

    def __init__(self, value: T) -> None:
        self._kernel = OnceSource(value)
        super().__init__(self._kernel)


class SourceIterObj(SourceObj[T_co], stock=True):
    """The items of any iterable, sync or async.

    Law: the items of the iterable, each once. Its iterator is made at the first pull.
    Order: the iterable's.
    Bound: nothing is held.
    Cost: O(1) per item, besides the iterable's own.
    Cancel safety: of a sync iterable no pull can be cancelled. A cancelled pull ends an async generator; the next pull
    then raises `SourceCancelledError`. The effect on another async iterator is up to that iterator.

    Args:
        iterable: The items. `restart()` creates a new iterator from it, and raises if it is an iterator itself.

    Raises:
        TypeError: The argument is not iterable.
    """

    def __init__(self, iterable: Source[T_co]) -> None:
        if isinstance(iterable, AsyncIterable):
            super().__init__(AsyncIterSource(cast("Any", iterable)))
        else:
            super().__init__(IterSource(_checked(iterable, "iterable")))
        self._kind = type(cast("object", iterable))

    def _repr_parts(self) -> Iterator[str]:
        yield f"of {self._kind.__name__}"
        yield from super()._repr_parts()


class SourceLinesObj(SourceObj[str], stock=True):
    r"""The lines of a text file, plain or gzipped, read outside of the event loop's thread.

    Law: the lines that `open(path, encoding=...)` gives, each with its `\n` (`\r` and `\r\n` are converted to it); for
    a gzipped file, detected by its first bytes, those of `gzip.open(path, "rt")`. The file is opened at the first pull,
    and closed at the end or when the stream is closed or dropped. Pipes and terminals are read too.
    Order: the file's.
    Bound: six batches of about 128 KiB, and three times the longest line, whatever the size of the
    file. A stream that is not pulled keeps no thread.
    Cost: one string per line; reading, unzipping and checking the encoding need no GIL.
    Cancel safety: a cancelled pull loses no line.

    An error of the file is raised after the lines before it, and ends the stream; `restart()` reopens the file. A line
    that cannot be decoded is lost: its error has a note with the line number, and the next pull yields the next line.

    Args:
        path: The file, as a str, bytes or `os.PathLike`; a relative path is resolved at the first pull.
        encoding: An encoding in which the bytes of `\n` and `\r` always mean these characters and each line can be
            decoded by itself: UTF-8, `utf-8-sig`, ASCII, ISO 8859, Windows' code pages, Shift JIS, GB 18030 and others;
            not UTF-16, UTF-32 or UTF-7.
        errors: As for `bytes.decode`: `"strict"`, `"replace"`, `"ignore"`, ...

    Raises:
        TypeError: `path`, `encoding` or `errors` is of another type.
        ValueError: `encoding` or `errors` is unknown, or `encoding` is not of this kind.
    """

    def __init__(self, path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> None:
        super().__init__(LinesSource(check_path("path", path), encoding, errors))
        self._path = path

    def _repr_parts(self) -> Iterator[str]:
        yield short_repr(os.fspath(self._path))
        yield from super()._repr_parts()

    @property
    def path(self) -> Path:
        """The file, as given; fixed."""
        return self._path


def as_pull(source: Source[T], parameter: str = "source") -> PullObj[T]:
    """Return a pull object for any source: the source itself if it is one. `parameter` is its name in messages.

    Raises:
        TypeError: The argument is not iterable.
    """
    if isinstance(source, PullObj):
        # The pull object may be pulled by a task, without a link.
        attach(source)
        return source
    if not isinstance(source, AsyncIterable):
        _checked(source, parameter)
    return SourceIterObj(source)


def _checked(iterable: Iterable[T], parameter: str) -> Iterable[T]:
    # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
    kind = type(cast("object", iterable))
    # The coroutine of `collect()` has an `__iter__`, as all native ones.
    if isinstance(iterable, Coroutine) or not (
        hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
    ):
        from headrace._internal.hints import for_source

        raise TypeError(
            f"{parameter} must be an iterable or an async iterable, got {describe_value(iterable)}{for_source(iterable)}"
        )
    return iterable
