"""Names that are imported when they are first asked for.

`import headrace` loads nothing else, and a program pays for the rooms that it enters. Checkers never see this: they read the
imports under `TYPE_CHECKING` in each package that is made so. Those are of a whole room, by a star, where all its names are
the package's too, and else of each name as itself, which tells checkers that it is for everyone. A test holds both equal.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["lazily"]


def lazily(
    package: str, rooms: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, the `__dir__` and the `__all__` of a package whose names are imported late (PEP 562).

    A name is looked up once; from then on it stands in the package like any other. The modules themselves are there too,
    `headrace.pull` after `import headrace`. Two threads that ask at once get the same object: the import is the
    interpreter's.

    Args:
        package: Its `__name__`.
        rooms: The names that each of its modules gives it, separated by blanks.
    """
    homes = {name: f"{package}.{room}" for room, names in rooms.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif name in rooms:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        own = (room for room in rooms if "." not in room)
        return sorted({*vars(sys.modules[package]), *homes, *own})

    return get, names, sorted(homes)
