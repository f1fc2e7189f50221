"""MkDocs hooks: add the pages of the reference, and the pages from outside `docs/`."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import TYPE_CHECKING

import headrace
import headrace.abc
import headrace.http
import headrace.queue
import headrace.testing
from headrace import PullObj, PushObj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# The modules of each page of the reference. Rust objects only name `headrace` as their module.
REFERENCE = {
    "pull": ("Pull streams", ("pull", "_internal.sentinels"), ("IteratorResult",)),
    "push": ("Push streams", ("push",), ()),
    "bridge": ("Between pull and push", ("buffer", "bridge", "signal"), ()),
    "capacity": ("Capacity", ("capacity",), ("Lease",)),
    "map": ("Map with limits", ("_front", "pool.map_error"), ("map",)),
    "pool": ("The pool", ("task", "graph", "pool", "_explain"), ("TaskProgressEnvelope",)),
    "journal": ("Journals", ("journal",), ("journal.JournalRecord", "journal.read_records")),
    "cache": ("Cache", ("cache",), ()),
    "errors": ("Errors", ("errors",), ()),
}
ON_OTHER_PAGES = {"pool": ("Failure", "MapError")}
OTHERS = {
    "queue": ("Queues in place of others", headrace.queue),
    "http": ("HTTP clients", headrace.http),
    "abc": ("Protocols", headrace.abc),
    "testing": ("For tests", headrace.testing),
}
# The elements beside a page.
HIDE = {"index.md": ["navigation"], "operators.md": ["navigation"]}
# Pages for files outside `docs/`, by their path in the repository: files of its root, and programs.
OUTSIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
_PAGES = OUTSIDE | {f"examples/{name}.py": f"examples/{name}.md" for name in EXAMPLES}
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)")


def reference() -> Iterator[tuple[str, str, list[str]]]:
    """Return each page of the reference: its name, its title, and the full names of its objects."""
    for page, (title, modules, besides) in REFERENCE.items():
        names = [
            name
            for module in modules
            for name in import_module("headrace").__all__
            if f"{_home(name)}.".startswith(f"headrace.{module}.")
            and name not in ON_OTHER_PAGES.get(page, ())
        ]
        yield page, title, [f"headrace.{name}" for name in (*names, *besides)]
    for page, (title, module) in OTHERS.items():
        yield page, title, [f"{module.__name__}.{name}" for name in module.__all__]


def _home(name: str) -> str:
    home: str = getattr(getattr(headrace, name), "__module__", "")
    return home


def _entry(path: str) -> str:
    """Return the entry of a name. Methods common to all streams are shown only with their base."""
    module, _, name = path.rpartition(".")
    thing = getattr(import_module(module), name)
    is_stream = inspect.isclass(thing) and issubclass(thing, (PullObj, PushObj))
    shows_all = not is_stream or thing in (PullObj, PushObj)
    if path in sys.modules:  # the defining module has the same name
        path = f"{path}.{name}"
    return f"::: {path}\n    options:\n      inherited_members: {str(shows_all).lower()}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of `docs/`."""
    from mkdocs.structure.files import File

    for page, title, names in reference():
        text = "\n\n".join([f"# {title}", *map(_entry, names)])
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    for outside, page in OUTSIDE.items():
        text = relinked((ROOT / outside).read_text(encoding="utf-8"), outside, page)
        files.append(File.generated(config, page, content=text))
    for name in EXAMPLES:
        files.append(File.generated(config, f"examples/{name}.md", content=_example(name)))
    return files


def _example(name: str) -> str:
    """Return the page of a program: its docstring, and the rest as code."""
    program = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(program)) or ""
    code = program.partition('"""\n\n')[2]
    title = name.replace("_", " ").capitalize()
    return f"# {title}\n\n{said}\n\n```python\n{code}```\n"


def on_page_markdown(markdown: str, page: Page, **_besides: object) -> str:
    """Point links at the pages of the site, and hide the sidebars of wide pages."""
    uri = page.file.src_uri
    page.meta["hide"] = HIDE.get(uri, [])
    return markdown if uri in _PAGES.values() else relinked(markdown, f"docs/{uri}", uri)


def relinked(markdown: str, here: str, page: str) -> str:
    """Return a text of the repository with its links rewritten for the site."""

    def led(link: re.Match[str]) -> str:
        target = normpath(join(dirname(here), link[1]))
        inside = _PAGES.get(target, target.removeprefix("docs/"))
        return f"]({relpath(inside, dirname(page) or '.')}"

    return _LINK.sub(led, markdown)
