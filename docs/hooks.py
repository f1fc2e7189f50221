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
import headrace.testing.executors
from headrace import PullObj, PushObj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# The modules of each page of the reference. Rust objects only name `headrace` as their module.
# The first entry of a page is its main class or function.
REFERENCE = {
    "pull": ("Pull streams", ("pull", "_internal.sentinels"), ("IteratorResult",)),
    "push": ("Push streams", ("push",), ()),
    "bridge": ("Between pull and push", ("buffer", "bridge", "signal"), ()),
    "capacity": ("Capacity", ("capacity",), ("Lease",)),
    "map": ("Map with limits", ("_front", "pool.map_error"), ("map",)),
    "pool": ("The pool", ("task", "graph", "pool", "_explain"), ("TaskProgressEnvelope",)),
    "processes": (
        "Worker processes",
        ("pool.executor.process",),
        ("NotSendable", "RemoteError", "WorkerLost"),
    ),
    "cluster": ("Ray clusters", ("pool.executor.ray",), ()),
    "journal": ("Journals", ("journal",), ("journal.JournalRecord", "journal.read_records")),
    "cache": ("Cache", ("cache",), ()),
    "errors": ("Errors", ("errors",), ()),
}
MAIN = {
    "pull": "PullObj",
    "push": "PushObj",
    "bridge": "PushPullBufferObj",
    "capacity": "CapacitySource",
    "map": "map",
    "pool": "HierarchicalTaskPoolRunner",
    "processes": "ProcessExecutor",
    "cluster": "RayExecutor",
    "journal": "Journal",
    "cache": "Cache",
    "errors": "HeadraceError",
    "queue": "Queue",
    "http": "observe",
    "abc": "PullProtocol",
    "testing": "VirtualClock",
    "executors": "Case",
}
ON_OTHER_PAGES = {
    "pool": ("Failure", "MapError", "ProcessExecutor", "RayExecutor"),
    "errors": ("NotSendable", "RemoteError", "WorkerLost"),
}
OTHERS = {
    "queue": ("Queues in place of others", headrace.queue),
    "http": ("HTTP clients", headrace.http),
    "abc": ("Protocols", headrace.abc),
    "testing": ("For tests", headrace.testing),
    "executors": ("Conformance of executors", headrace.testing.executors),
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
        paths = [f"headrace.{name}" for name in (*names, *besides)]
        yield page, title, _main_first(page, paths)
    for page, (title, module) in OTHERS.items():
        paths = [f"{module.__name__}.{name}" for name in module.__all__]
        yield page, title, _main_first(page, paths)


def _main_first(page: str, paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.rpartition(".")[2] != MAIN[page])


def _in_one_line(path: str) -> str:
    """Return the entry of a name in the list at the top of a page: a link, and the first sentence of its docstring."""
    module, _, name = path.rpartition(".")
    thing = getattr(import_module(module), name)
    link = f"[`{name}`][{_identifier(path)}]"
    # That of an alias of a type is of its class, such as `Literal`.
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f"- {link}"
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:])\s+(?=[A-Z`])", paragraph, maxsplit=1)[0]
    return f"- {link}: {sentence}"


def _identifier(path: str) -> str:
    # The defining module may have the same name.
    return f"{path}.{path.rpartition('.')[2]}" if path in sys.modules else path


def _home(name: str) -> str:
    home: str = getattr(getattr(headrace, name), "__module__", "")
    return home


def _entry(path: str) -> str:
    """Return the entry of a name. Methods common to all streams are shown only with their base."""
    module, _, name = path.rpartition(".")
    thing = getattr(import_module(module), name)
    is_stream = inspect.isclass(thing) and issubclass(thing, (PullObj, PushObj))
    shows_all = not is_stream or thing in (PullObj, PushObj)
    return (
        f"::: {_identifier(path)}\n    options:\n      inherited_members: {str(shows_all).lower()}"
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of `docs/`."""
    from mkdocs.structure.files import File

    for page, title, names in reference():
        listed = "\n".join(map(_in_one_line, names))
        text = "\n\n".join([f"# {title}", listed, *map(_entry, names)])
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


def on_page_content(html: str, page: Page, **_besides: object) -> str:
    """Mark the tables of operators, which become cards on a phone (`site.css`)."""
    if page.file.src_uri != "operators.md":
        return html
    return f'<div class="operators">{html}</div>'


def relinked(markdown: str, here: str, page: str) -> str:
    """Return a text of the repository with its links rewritten for the site."""

    def led(link: re.Match[str]) -> str:
        target = normpath(join(dirname(here), link[1]))
        inside = _PAGES.get(target, target.removeprefix("docs/"))
        return f"]({relpath(inside, dirname(page) or '.')}"

    return _LINK.sub(led, markdown)
