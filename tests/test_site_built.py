"""The built site: its search finds the how-tos, its reference opens with a list, and a phone can show it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser

ROOT = Path(__file__).parents[1]
# The file that is run, so that the site describes this package.
PATH = os.pathsep.join([str(ROOT / "python"), str(ROOT / "docs")])

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.parametrize(
    "word",
    ["openai", "httpx", "aiohttp", "FastAPI", "tqdm", "Jupyter", "CSV", "Parquet", "SQLite"],
)
def test_search_finds_the_how_to_of_a_word(site: Path, word: str) -> None:
    index: Any = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    # It compares words in lower case, split as its configuration says; titles weigh most.
    separator = index["config"]["separator"]
    found = {
        entry["location"]
        for entry in index["docs"]
        if word.lower() in re.split(separator, entry["title"].lower())
    }
    assert any(location.startswith("howto/") for location in found), found


@pytest.mark.parametrize(
    ("page", "main"),
    [("pull", "PullObj"), ("map", "map"), ("pool", "HierarchicalTaskPoolRunner")],
)
def test_reference_opens_with_a_list(site: Path, page: str, main: str) -> None:
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    listed = text[text.index("<h1") : text.index("<h2")]
    entries = re.findall(r"<li>(.*?)</li>", listed, re.DOTALL)
    assert len(entries) == text.count("<h2")
    assert f"<code>{main}</code>" in entries[0]


def test_site_fits_a_phone_and_the_first_screen(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        chromium.look(width=1280, dark=False)
        chromium.open(site / "index.html")
        # The install line and the whole first program are above the fold of a small laptop.
        blocks = [
            "[...document.querySelectorAll('.highlight')].slice(0, 2)"
            f".map(one => one.getBoundingClientRect().bottom)[{number}]"
            for number in (0, 1)
        ]
        install, program = (chromium.evaluate(block) for block in blocks)
        assert 0 < install < program < 720
        chromium.look(width=390, dark=False)
        for page in ("index", "operators", "howto/openai"):
            chromium.open(site / f"{page}.html")
            assert chromium.evaluate("document.documentElement.scrollWidth") <= 390, page
        chromium.open(site / "operators.html")
        cell = "document.querySelector('.operators td:nth-child(6)')"
        assert chromium.evaluate(f"getComputedStyle({cell}, '::before').content") == (
            '"cancel safety"'
        )
        assert chromium.evaluate(f"{cell}.getBoundingClientRect().right") <= 390
        if folder := os.environ.get("HEADRACE_SCREENSHOTS"):
            for page in ("index", "operators"):
                chromium.open(site / f"{page}.html")
                chromium.screenshot(Path(folder) / f"{page}-390.png")
