"""What the site has besides its pages: the reference has every public name, and reads the docstrings as they are meant."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Literal, get_origin

import pytest
from hooks import EXAMPLES, OUTSIDE, ROOT, reference, relinked

import headrace
import headrace.abc
import headrace.queue
import headrace.testing
from tests.support import EXPORTED

SHOWN = [name for _page, _title, names in reference() for name in names]


def thing(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_the_reference_has_every_public_name_once() -> None:
    public = [f"headrace.{name}" for name in EXPORTED if name != "__version__"]
    for module in (headrace.queue, headrace.abc, headrace.testing):
        public += [f"{module.__name__}.{name}" for name in module.__all__]
    assert sorted(SHOWN) == sorted(public), "its module is on no page of docs/hooks.py"


@pytest.mark.parametrize("path", SHOWN)
def test_what_the_reference_shows_says_what_it_is(path: str) -> None:
    if get_origin(thing(path)) is Literal:
        return  # says so itself
    said = inspect.getdoc(thing(path))
    assert said, f"{path} has no docstring, and would be an empty heading"
    if inspect.isclass(thing(path)):
        inherited = {inspect.getdoc(base) for base in thing(path).__mro__[1:]}
        assert said not in inherited, f"{path} says what its base says"


def test_every_page_that_is_made_has_its_place() -> None:
    order = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page, _title, _names in reference():
        assert f"- reference/{page}.md\n" in order
    for page in OUTSIDE.values():
        assert f"- {page}\n" in order
    for name in EXAMPLES:
        assert f": examples/{name}.md\n" in order


@pytest.mark.parametrize(
    ("here", "page", "link", "led"),
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
def test_a_link_of_the_repository_leads_there_on_the_site_too(
    here: str, page: str, link: str, led: str
) -> None:
    assert relinked(f"see [it]({link}).", here, page) == f"see [it]({led})."


def test_facts_of_a_docstring_become_a_list() -> None:
    pytest.importorskip("griffe", reason="it comes with what builds the site")
    from docstrings import listed

    said = "First.\n\nLaw: one\ntwo.\nOrder: three. Bound: four.\nOrder, Cost: five.\n\nLast: six."
    facts = [
        "**Law**: one\ntwo.",
        "**Order**: three.",
        "**Bound**: four.",
        "**Order, Cost**: five.",
    ]
    made = listed(said).replace("\n\n- ", "\n- ")
    assert made == "First.\n- " + "\n- ".join(facts) + "\n\nLast: six."
