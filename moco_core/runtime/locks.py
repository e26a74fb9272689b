"""A lock between processes: a file that the operating system unlocks when its holder ends, killed or not."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import IO, Any


class FileLock:
    """An exclusive lock on a file, which is made if it is missing and left in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody has it; return whether it is held now. Raises OSError if the file cannot be made."""
        file = self.path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError:
            file.close()
            return False
        self._file = file
        with contextlib.suppress(OSError):  # on a full disk it is held all the same
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        return True

    def holder(self) -> int | None:
        """Return the process id of whoever took the lock last, None if unknown."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.path.read_text(encoding="utf-8"))
        return None

    def held(self) -> bool:
        """Return whether anybody, this process included, holds the lock now."""
        try:
            with self.path.open("rb") as file:
                _lock(file)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return False

    def release(self) -> None:
        """Give the lock up; does nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[Any]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[Any]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            # a file system without locks: nobody can be kept out
