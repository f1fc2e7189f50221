"""The Python programs of a page, and the output that their comments promise."""

from __future__ import annotations

import re


def programs_of(text: str) -> list[str]:
    """Return the Python programs of a page, each without its fences."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def expected_output(program: str) -> list[str]:
    """Return the output that the comments promise: behind a `print`, or in the lines below it."""
    error: list[str] = []
    follows = False
    for line in program.splitlines():
        if same_line := re.search(r"print\(.*\)  # (.*)$", line):
            error.append(same_line[1])
            follows = False
        elif follows and (next_line := re.fullmatch(r" *# (.*)", line)):
            error.append(next_line[1])
        else:
            follows = re.fullmatch(r" *print\(.*\)", line) is not None
    return error
