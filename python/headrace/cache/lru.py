"""`LruStore`: a store in memory that forgets the least recently used entries."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin
from headrace._internal.validate import check_size
from headrace.capacity._as_capacity import loop_clock

if TYPE_CHECKING:
    from collections.abc import Iterator


class LruStore(ReprMixin, Uncopied):
    """A store of a `Cache` in memory, for a number of entries; the least recently used one is forgotten first.

    All callers get the same object, so none of them may change it. A time to live is measured on the clock of the running event
    loop, which may be virtual. Any thread and any loop may use the store; it takes no lock.

    Bound: `max_entries` entries, of any size.
    Cost: O(1), about 1 us.

    Args:
        max_entries: The number of entries.

    Raises:
        TypeError: `max_entries` is not an integer.
        ValueError: `max_entries` is less than 1.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = check_size("max_entries", max_entries)
        # Each method of it is one step under the interpreter lock, since the keys are bytes.
        self._entries: OrderedDict[bytes, tuple[Any, float | None]] = OrderedDict()

    def get(self, key: bytes, default: Any, /) -> Any:
        """Return a stored value, or `default`."""
        entry = self._entries.get(key)
        if entry is None:
            return default
        value, expires = entry
        # Another thread may remove the entry at any time.
        with suppress(KeyError):
            if expires is not None and _now() >= expires:
                del self._entries[key]
                return default
            self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: Any, ttl: float | None, /) -> None:
        """Store a value."""
        self._entries[key] = value, None if ttl is None else _now() + ttl
        with suppress(KeyError):
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        """Return the number of entries, including those whose time to live has passed."""
        return len(self._entries)

    async def aclose(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def _repr_parts(self) -> Iterator[str]:
        yield f"{len(self)} of {self._max_entries} entries"


def _now() -> float:
    return (loop_clock() or time.monotonic)()
