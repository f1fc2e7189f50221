"""`start_reaper`: starts a process that ends what is left of a Ray of this program when the program has died.

Ray ends its own processes when the program that has started them is killed, but for the agents of its node, which take a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

_PROGRAM = """\
import select, signal, sys
program, *others = map(int, sys.argv[1:])
select.select([program], [], [])
for other in others:
    try:
        signal.pidfd_send_signal(other, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def start_reaper() -> subprocess.Popen[bytes]:
    """Start the process. It waits for the end of this one, and is killed if it is not needed any more."""
    with ExitStack() as stack:
        # By descriptors, which never mean a later process with the same number.
        descriptors: list[int] = []
        for pid in [os.getpid(), *_agents()]:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
                stack.callback(os.close, descriptors[-1])
        return subprocess.Popen(  # noqa: S603 (this interpreter)
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _agents() -> list[int]:
    """Return the processes that the node of this program's Ray has started."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name of the program, in parentheses, may contain anything.
                start, _, rest = (entry / "stat").read_text().rpartition(")")
                parents[int(entry.name)] = int(rest.split()[1])
                names[int(entry.name)] = start.partition("(")[2]
    ours = os.getpid()
    nodes = {pid for pid, parent in parents.items() if parent == ours and names[pid] == "raylet"}
    return [pid for pid, parent in parents.items() if parent in nodes]
