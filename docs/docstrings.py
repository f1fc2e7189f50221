"""How our code is read for the reference: the facts of docstrings, Law, Order, Bound, Cost and Cancel safety, become lists."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from griffe import Alias, Object

_NAME = "(?:Law|Order|Bound|Cost|Cancel safety|Depth)"
_FACT = re.compile(rf"(?:^|(?<=[.`)\]]) )({_NAME}(?:, {_NAME})*): ", re.MULTILINE)


def listed(docstring: str) -> str:
    """A docstring whose facts are the items of a list."""
    return "\n\n".join(
        _FACT.sub(r"\n- **\1**: ", paragraph).lstrip("\n") if _FACT.match(paragraph) else paragraph
        for paragraph in docstring.split("\n\n")
    )


class Facts(griffe.Extension):
    """Does so with every docstring that griffe reads. Those of what is made in Rust are in the module alone."""

    def on_object(self, *, obj: Object, **_kwargs: Any) -> None:
        """An object was read."""
        module, _, path = obj.path.partition("._core.")
        if path and obj.docstring is None and module == "headrace":
            try:
                said = inspect.getdoc(attrgetter(path)(import_module("headrace._core")))
            except AttributeError:  # what only checkers know
                said = None
            if said:
                obj.docstring = griffe.Docstring(said, parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)


class Maps(griffe.Extension):
    """Takes what a package imports for checkers alone as what it gives: it is there when it is asked for, imported late."""

    def on_alias_instance(self, *, alias: Alias, **_kwargs: Any) -> None:
        """An import was read."""
        alias.runtime = True
