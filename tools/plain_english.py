"""Check comments, docstrings, messages and pages for plain English: `python tools/plain_english.py [PATH ...]`.

Refused are words for people where code is meant ("who waits", "nobody"), sentences and noun phrases that start with
"What", a few idioms, and functions in Rust that are not described by an imperative verb. (In Python, ruff's D401 checks
the last.)
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[1]
CHECKED = [
    "python", "rust", "tests", "examples", "benches", "docs",
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
]  # fmt: skip

UNFINISHED: list[str] = []
"""Paths that are not rewritten yet. This list only gets shorter."""

ABOUT_PEOPLE: list[str] = []
"""Parts of sentences on pages that are about people."""

REFUSED = {
    "a word for people": re.compile(
        r"\b(?:who|whom|whoever|somebody|nobody|everybody)\b", re.IGNORECASE
    ),
    "a phrase that starts with 'What'": re.compile(r"(?:^|[.:;] )What\b(?![^.]*\?)"),
    "an idiom": re.compile(
        r"\bof now\b|\bturns? of the loop\b|\ball the same\b|\bcame to nothing\b"
    ),
}
NOT_IMPERATIVE = re.compile(r"(?:[A-Z][a-z]*[^s]s|What|Whether|How|Why|When|Where|It|Nothing)\b")


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, strings and names of tests of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
        elif token.type == tokenize.STRING or tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line.strip().strip("\"'").strip()
        elif token.type == tokenize.NAME and token.string.startswith("test_"):
            yield token.start[0], token.string.replace("_", " ")


def _rust(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, strings and names of functions of a Rust file."""
    for number, line in enumerate(text.splitlines(), 1):
        if comment := re.search(r"(?:^|\s)//[/!]?\s?(.*)$", line):
            yield number, comment[1].strip()
        elif named := re.search(r"\bfn (\w+)", line):
            yield number, named[1].replace("_", " ")
        for string in re.findall(r'"((?:[^"\\]|\\.)*)"', line):
            yield number, string


def _page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page that are not in a program."""
    is_program = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            is_program = not is_program
        elif not is_program:
            yield number, re.sub(r"^[\s>|*#-]*(?:\d+\. )?", "", line)


READERS = {".py": _python, ".pyi": _python, ".rs": _rust, ".md": _page}


def _not_imperative(text: str) -> Iterator[tuple[int, str]]:
    """Yield the first lines of descriptions of Rust functions that do not start with an imperative verb."""
    first: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("///"):
            first = first or (number, bare[3:].strip())
        elif not bare.startswith("#["):
            is_function = re.match(r"(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn \w", bare)
            if first and is_function and NOT_IMPERATIVE.match(first[1]):
                yield first
            first = None


def faults(path: Path) -> Iterator[str]:
    """Yield a line for each fault of a file."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    for number, line in READERS[path.suffix](text):
        if path.suffix == ".md" and any(part in line for part in ABOUT_PEOPLE):
            continue
        for reason, pattern in REFUSED.items():
            if found := pattern.search(line):
                yield f"{name}:{number}: {reason}, {found[0].strip()!r}: {line[:100]}"
    if path.suffix == ".rs":
        for number, line in _not_imperative(text):
            yield f"{name}:{number}: not an imperative verb: {line[:100]}"


def files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the files below the paths that are to be checked."""
    for path in paths:
        start = ROOT / path
        for file in [start] if start.is_file() else sorted(start.rglob("*")):
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in READERS and not name.startswith(tuple(UNFINISHED)):
                yield file


def main() -> int:
    """Print the faults; return 1 if there are any."""
    found = [fault for file in files(sys.argv[1:] or CHECKED) for fault in faults(file)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
