"""`Uncopied`: the base of classes whose objects refuse to be copied and pickled, since they own a state that exists once.

`CapacitySource`, `HierarchicalTaskPoolRunner` and the executors inherit it.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn


class Uncopied:
    """The base of classes that refuse `copy.copy`, `copy.deepcopy` and `pickle`, all with the same `TypeError`.

    A copy would share the state of the original, or have none. A subclass may define `__reduce__` to allow it.
    """

    __slots__ = ()

    _instead: ClassVar[str] = "make another one"
    """The advice in the message."""

    def __reduce__(self) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: it has a state of its own; {self._instead}"
        )
