"""griffe extensions for the reference: docstring facts (Law, Order, Bound, Cost, Cancel safety) become lists."""

from __future__ import annotations

import ast
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
    """Return a docstring with its facts as the items of a list."""
    return "\n\n".join(
        _FACT.sub(r"\n- **\1**: ", paragraph).lstrip("\n") if _FACT.match(paragraph) else paragraph
        for paragraph in docstring.split("\n\n")
    )


class Facts(griffe.Extension):
    """Format the facts of every docstring that griffe reads.

    Docstrings of Rust objects exist only in the imported module. That of a live attribute is the argument of its descriptor.
    """

    def on_object(self, *, obj: Object, **_kwargs: Any) -> None:
        """Format the docstring of an object that was read."""
        module, _, path = obj.path.partition("._core.")
        if path and obj.docstring is None and module == "headrace":
            try:
                said = inspect.getdoc(attrgetter(path)(import_module("headrace._core")))
            except AttributeError:  # a name that exists only for type checkers
                said = None
            if said:
                obj.docstring = griffe.Docstring(said, parent=obj)
        value = getattr(obj, "value", None)
        if isinstance(value, griffe.ExprCall) and str(value.function) == "KernelProperty":
            obj.docstring = griffe.Docstring(ast.literal_eval(str(value.arguments[0])), parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)


class Maps(griffe.Extension):
    """Treat imports under `TYPE_CHECKING` as exports: the package imports them on first access."""

    def on_alias_instance(self, *, alias: Alias, **_kwargs: Any) -> None:
        """Mark an import that was read as available at run time."""
        alias.runtime = True
