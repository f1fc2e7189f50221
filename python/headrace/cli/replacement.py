"""A new version of a file, written beside it and put in its place in one step.

The new version is a temporary file, `.NAME.<16 random hex digits>.tmp`.

- It is created with O_EXCL and O_NOFOLLOW, so that nothing that was planted is written to, and no two runs share it.
- It has mode 0600 until it is published. Then it has the mode of the file that it replaces.
- It is written, locked, synchronised and given its mode through its descriptor. The name is used for the rename alone,
  once it is certain that it still names this file.
- It is locked (`flock`) for the life of the run. A temporary file whose lock is free was left by a run that was killed.
  The lock is taken under another name, `….new`: otherwise a second run could find the file before it is locked.

Child processes that are forked and not executed inherit the descriptor and with it the lock: they count as a live run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

COPIED = 1 << 20
"""How many bytes are copied at a time."""

UNLOCKED = 60.0
"""For how many seconds a `….new` may be that of a run that is about to lock it."""


class Replacement:
    """A temporary file beside `target`, to be published as `target`, kept as `target.partial`, or discarded.

    Raises:
        OSError: it cannot be created or, later, written or renamed.
    """

    def __init__(self, target: Path) -> None:
        self.is_published: bool = False
        self._target = target
        # The only way to read the mask is to set it: for this moment to a stricter one, since threads share it.
        mask = os.umask(0o077)
        os.umask(mask)
        self._new_mode = 0o666 & ~mask
        self._size = 0
        self.path: Path
        self._file, self.path = _create(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append all of `data`, or nothing."""
        try:
            write_all(self._file.fileno(), data)
        except OSError:
            os.ftruncate(self._file.fileno(), self._size)
            os.lseek(self._file.fileno(), self._size, os.SEEK_SET)
            raise
        self._size += len(data)

    def publish(self) -> None:
        """Put it in the place of the target. When this returns, that is on disk."""
        self._rename(self._target)

    def keep(self) -> Path:
        """Move it to the first free one of `target.partial`, `target.partial.2` and so on, and return that path."""
        tried = 1
        while True:
            number = "" if tried == 1 else f".{tried}"
            path = self._target.with_name(f"{self._target.name}.partial{number}")
            try:
                # Reserves the name: another run may be looking for one, too.
                os.close(os.open(path, os.O_WRONLY | _EXCLUSIVELY, 0o600))
            except FileExistsError:
                tried += 1
                continue
            try:
                self._rename(path)
            except OSError:
                if not self.is_published:
                    path.unlink(missing_ok=True)
                raise
            return path

    def discard(self) -> None:
        """Delete it."""
        if self._has_its_name():
            self.path.unlink(missing_ok=True)

    def _rename(self, path: Path) -> None:
        self._set_mode()
        # Before it has the name: a crash must not leave an empty file behind that name.
        os.fsync(self._file.fileno())
        if not self._has_its_name():
            self._copy()
        self.path.replace(path)
        self.path = path
        self.is_published = True
        _sync_directory(path.parent)

    def _has_its_name(self) -> bool:
        try:
            named = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self._file.fileno()))

    def _copy(self) -> None:
        """Go on with a copy: the name was deleted, or something else was put there, which is not ours to move."""
        with self._file as lost:
            self._file, self.path = _create(self._target)
            at = 0
            while piece := os.pread(lost.fileno(), COPIED, at):
                write_all(self._file.fileno(), piece)
                at += len(piece)
        self._set_mode()
        os.fsync(self._file.fileno())

    def _set_mode(self) -> None:
        """Set the mode and the group of the target, never more; of a new file, the usual ones."""
        number = self._file.fileno()
        try:
            old = self._target.stat()
        except FileNotFoundError:
            mode = self._new_mode
        else:
            mode = old.st_mode & 0o777
            if os.fstat(number).st_gid != old.st_gid:
                try:
                    os.fchown(number, -1, old.st_gid)
                except OSError:
                    mode &= ~0o070  # these rights are of another group
        # Some file systems have no modes. What it has already is not wider.
        with suppress(OSError):
            os.fchmod(number, mode)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file of a run that was killed."""

    path: Path
    size: int
    age: float
    """The seconds since it was last written."""


def leftovers(target: Path) -> list[Leftover]:
    """Find the temporary files beside `target` that no live run has."""
    stem = _stem(target)
    pattern = re.compile(re.escape(stem) + r"[0-9a-f]{16}\.(new|tmp)")
    try:
        names = os.listdir(target.parent)  # noqa: PTH208 - a path for each of very many would take long
    except OSError:
        return []
    found = [
        leftover
        for name in sorted(names)
        if name.startswith(stem)
        and (match := pattern.fullmatch(name))
        and (leftover := _unowned(target.with_name(name), is_new=match[1] == "new"))
    ]
    return sorted(found, key=lambda leftover: leftover.age)


def _unowned(path: Path, *, is_new: bool) -> Leftover | None:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # renamed meanwhile, a link, or of another user
    try:
        status = os.fstat(number)
        age = max(0.0, time.time() - status.st_mtime)
        if not stat.S_ISREG(status.st_mode) or (is_new and age < UNLOCKED):
            return None
        # Shared: two runs that look at the same time do not take each other for the owner.
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Its owner may have published it just before.
        if not os.path.samestat(os.lstat(path), status):
            return None
    except OSError:
        return None
    finally:
        os.close(number)
    return Leftover(path, status.st_size, age)


_EXCLUSIVELY = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _create(target: Path) -> tuple[FileIO, Path]:
    """Create and lock a temporary file beside `target`."""
    new = target.with_name(f"{_stem(target)}{secrets.token_hex(8)}.new")
    file = FileIO(new, "x+", opener=lambda path, _: os.open(path, os.O_RDWR | _EXCLUSIVELY, 0o600))
    try:
        # A file system without locks: no file there counts as left behind.
        with suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        return file, new.rename(new.with_suffix(".tmp"))
    except OSError:
        file.close()
        new.unlink(missing_ok=True)
        raise


def _stem(target: Path) -> str:
    # Cut, so that a temporary file can have a name wherever the target can.
    return f".{os.fsdecode(os.fsencode(target.name)[:200])}."


def _sync_directory(folder: Path) -> None:
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # one may write into it, and not read it
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in {
            errno.EINVAL,
            errno.ENOTSUP,
        }:  # of file systems that do not know this
            raise
    finally:
        os.close(number)


def write_all(number: int, data: bytes) -> None:
    """Write all of `data` to a descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
