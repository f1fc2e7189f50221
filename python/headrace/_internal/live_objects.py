"""`live_objects`: finds the objects of a class through the garbage collector. `explain()` calls it."""

from __future__ import annotations

import gc
from typing import Any


def live_objects(*kinds: type) -> list[list[Any]]:
    """Return the objects of these classes, in one list for each of them."""
    objects = gc.get_objects()
    # By their types, not by `isinstance`, which may call `__class__` of a foreign object.
    lists: list[list[Any]] = [[] for _ in kinds]
    # By their ids: a class may be unhashable.
    types: list[type[Any]] = list(map(type, objects))
    wanted = {
        number: found
        for number, kind in {id(kind): kind for kind in types}.items()
        for base, found in zip(kinds, lists, strict=True)
        if any(one is base for one in kind.__mro__)
    }
    for one, kind in zip(objects, types, strict=True):
        if (found := wanted.get(id(kind))) is not None:
            found.append(one)
    return lists
