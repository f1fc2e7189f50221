"""Atomic replacement of a file by a new version from the same directory. `Output` writes through a `Replacement`.

The new version is a temporary file, `.NAME.<16 random hex digits>.tmp`.

- O_EXCL and O_NOFOLLOW create it: a planted file or link is never written to, and no two runs share one.
- Its mode is 0600 until it is published. Then it has the mode of the file that it replaces.
- Writes, lock, sync and mode changes use the descriptor. The path is used only for the rename, after a check that it
  still names this file.
- It is locked (`flock`) for the life of the run. A temporary file without a lock was left by a killed run. The lock is
  taken while the name still ends in `.new`: otherwise a second run could find the file before it is locked.

A forked child that does not call exec inherits the descriptor and thus the lock. It counts as a live run.
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
    from typing import BinaryIO, Self

COPY_CHUNK = 1 << 20
"""The bytes copied in one step."""

LOCK_GRACE = 60.0
"""The seconds for which an unlocked `.new` file may belong to a run that is about to lock it."""


class Replacement:
    """A temporary file in the directory of `target`: published as `target`, kept as `target.partial`, or discarded.

    Raises:
        OSError: the file cannot be created or, later, written or renamed.
    """

    def __init__(self, target: Path) -> None:
        self.is_published: bool = False
        self._target = target
        # Reading the umask requires setting it. Other threads share it, so the interim value is strict.
        mask = os.umask(0o077)
        os.umask(mask)
        self._new_mode = 0o666 & ~mask
        self._size = 0
        self.path: Path
        self._file, self.path = _create(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor, which releases the lock."""
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

    def open(self) -> BinaryIO:
        """Open the file itself at its start, to read or to write all of it. `write()` appends no more after this."""
        file = os.fdopen(os.dup(self._file.fileno()), "r+b")
        file.seek(0)
        return file

    def publish(self) -> None:
        """Replace the target. When this returns, the change is on disk."""
        self._rename(self._target)

    def keep(self) -> Path:
        """Move the file to the first free path of `target.partial`, `target.partial.2` and so on; return it."""
        tried = 1
        while True:
            descriptor = "" if tried == 1 else f".{tried}"
            path = self._target.with_name(f"{self._target.name}.partial{descriptor}")
            try:
                # Reserves the name against other runs.
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
        """Delete the file."""
        if self._owns_path():
            self.path.unlink(missing_ok=True)

    def _rename(self, path: Path) -> None:
        self._set_mode()
        # Before the rename: a crash must not leave an empty file under that name.
        os.fsync(self._file.fileno())
        if not self._owns_path():
            self._copy()
        self.path.replace(path)
        self.path = path
        self.is_published = True
        _sync_directory(path.parent)

    def _owns_path(self) -> bool:
        try:
            named = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self._file.fileno()))

    def _copy(self) -> None:
        """Continue with a copy: the path was deleted, or names a foreign file, which must not be moved."""
        with self._file as lost:
            self._file, self.path = _create(self._target)
            offset = 0
            while chunk := os.pread(lost.fileno(), COPY_CHUNK, offset):
                write_all(self._file.fileno(), chunk)
                offset += len(chunk)
        self._set_mode()
        os.fsync(self._file.fileno())

    def _set_mode(self) -> None:
        """Copy the mode and the group of the target, without widening access. A new file gets the default mode."""
        descriptor = self._file.fileno()
        try:
            old = self._target.stat()
        except FileNotFoundError:
            mode = self._new_mode
        else:
            mode = old.st_mode & 0o777
            if os.fstat(descriptor).st_gid != old.st_gid:
                try:
                    os.fchown(descriptor, -1, old.st_gid)
                except OSError:
                    mode &= ~0o070  # these permissions are for another group
        # Some file systems have no modes. The current mode is not wider.
        with suppress(OSError):
            os.fchmod(descriptor, mode)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file left by a killed run."""

    path: Path
    size: int
    age: float
    """The seconds since the last write."""


def find_leftovers(target: Path) -> list[Leftover]:
    """Find the temporary files of `target` that belong to no live run."""
    stem = _stem(target)
    pattern = re.compile(re.escape(stem) + r"[0-9a-f]{16}\.(new|tmp)")
    try:
        names = os.listdir(target.parent)  # noqa: PTH208 - making a `Path` for each of many names is slow
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
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # renamed meanwhile, a link, or owned by another user
    try:
        status = os.fstat(descriptor)
        age = max(0.0, time.time() - status.st_mtime)
        if not stat.S_ISREG(status.st_mode) or (is_new and age < LOCK_GRACE):
            return None
        # Shared: two runs that check at the same time do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Its owner may just have published it.
        if not os.path.samestat(os.lstat(path), status):
            return None
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return Leftover(path, status.st_size, age)


_EXCLUSIVELY = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _create(target: Path) -> tuple[FileIO, Path]:
    """Create and lock a temporary file beside `target`."""
    new = target.with_name(f"{_stem(target)}{secrets.token_hex(8)}.new")
    file = FileIO(new, "x+", opener=lambda path, _: os.open(path, os.O_RDWR | _EXCLUSIVELY, 0o600))
    try:
        # On a file system without locks, no file counts as left behind.
        with suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        return file, new.rename(new.with_suffix(".tmp"))
    except OSError:
        file.close()
        new.unlink(missing_ok=True)
        raise


def _stem(target: Path) -> str:
    # Cut, so that the temporary name is valid wherever the name of the target is.
    return f".{os.fsdecode(os.fsencode(target.name)[:200])}."


def _sync_directory(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # a directory may be writable and not readable
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a directory.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
