"""The generated parts of the site: the reference has every public name, and docstrings are rendered as intended."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Literal, get_origin

import pytest
from hooks import EXAMPLES, MAIN, OUTSIDE, ROOT, reference, relinked

import headrace
import headrace.abc
import headrace.http
import headrace.queue
import headrace.testing
import headrace.testing.executors
from tests.support import EXPORTED

DOCUMENTED = [name for _page, _title, names in reference() for name in names]


def resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_reference_has_every_public_name_once() -> None:
    # A star import does not replace the builtin `map`.
    public = [f"headrace.{name}" for name in [*EXPORTED, "map"] if name != "__version__"]
    for module in (
        headrace.queue,
        headrace.http,
        headrace.abc,
        headrace.testing,
        headrace.testing.executors,
    ):
        public += [f"{module.__name__}.{name}" for name in module.__all__]
    public += [f"headrace.journal.{name}" for name in ("JournalRecord", "read_records")]
    assert sorted(DOCUMENTED) == sorted(public), (
        "a module is missing from the pages of docs/hooks.py"
    )


def test_main_class_is_the_first_of_its_page() -> None:
    for page, _title, names in reference():
        assert names[0].rpartition(".")[2] == MAIN[page]
    assert set(MAIN) == {page for page, _title, _names in reference()}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_documented_names_have_their_own_docstring(path: str) -> None:
    if get_origin(resolve(path)) is Literal:
        return  # its value describes it
    docstring = inspect.getdoc(resolve(path))
    assert docstring, f"{path} has no docstring: its heading would be empty"
    if inspect.isclass(resolve(path)):
        inherited = {inspect.getdoc(base) for base in resolve(path).__mro__[1:]}
        assert docstring not in inherited, f"{path} inherits the docstring of its base"


def test_every_generated_page_is_in_the_navigation() -> None:
    order = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page, _title, _names in reference():
        assert f"- reference/{page}.md\n" in order
    for page in OUTSIDE.values():
        assert f"- {page}\n" in order
    for name in EXAMPLES:
        assert f": examples/{name}.md\n" in order


@pytest.mark.parametrize(
    ("here", "page", "link", "target"),
    [
        ("CONTRIBUTING.md", "contributing.md", "docs/laws.md#x", "laws.md#x"),
        ("CONTRIBUTING.md", "contributing.md", "CHANGELOG.md", "changelog.md"),
        ("docs/pool.md", "pool.md", "../examples/crawl.py", "examples/crawl.md"),
        ("docs/howto/a.md", "howto/a.md", "../../examples/crawl.py", "../examples/crawl.md"),
        ("docs/howto/a.md", "howto/a.md", "../laws.md", "../laws.md"),
        ("docs/howto/a.md", "howto/a.md", "https://example.org/a", "https://example.org/a"),
        ("docs/pool.md", "pool.md", "#ending", "#ending"),
    ],
)
def test_repository_links_are_rewritten_for_the_site(
    here: str, page: str, link: str, target: str
) -> None:
    assert relinked(f"see [it]({link}).", here, page) == f"see [it]({target})."


def test_docstring_facts_become_a_list() -> None:
    pytest.importorskip("griffe", reason="it comes with what builds the site")
    from docstrings import listed

    docstring = (
        "First.\n\nLaw: one\ntwo.\nOrder: three. Bound: four.\nOrder, Cost: five.\n\nLast: six."
    )
    facts = [
        "**Law**: one\ntwo.",
        "**Order**: three.",
        "**Bound**: four.",
        "**Order, Cost**: five.",
    ]
    converted = listed(docstring).replace("\n\n- ", "\n- ")
    assert converted == "First.\n- " + "\n- ".join(facts) + "\n\nLast: six."
