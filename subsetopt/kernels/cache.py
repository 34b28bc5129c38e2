"""Compiled kernels on disk: found wherever they lie, and kept wherever that is possible.

Numba raises where it can write neither beside the source nor into the user's cache folder, and on
a damaged file. It also takes for current what was compiled from another version of a kernel that is
called, and, after a race of two processes, what was compiled for other arguments.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.misc.appdirs import AppDirs

from subsetopt.inputs import DECIDED
from subsetopt.kernels.progress import WATCH

__all__ = ["KernelCache"]

_log = logging.getLogger("subsetopt")

# Where the source of the kernels lies.
_KERNELS = Path(__file__).parent


class _Naming(CompileResultCacheImpl):
    """How a compiled kernel is named and packed; it has no locator that could raise."""

    def __init__(self, function: Callable[..., Any]) -> None:
        source = Path(function.__code__.co_filename)
        line = function.__code__.co_firstlineno
        version = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        self._filename_base = f"{source.stem}.{function.__qualname__}-{line}.{version}"


class KernelCache(FunctionCache):
    """The compiled versions of one kernel on disk, for Numba's dispatcher.

    They are loaded from the first folder that has them, and saved into the first that can be
    written. A damaged file is deleted, and the kernel compiled anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = repr(function)
        self._py_func = function
        self._impl = _Naming(function)
        self._stamp = _stamp()
        folders, writable = _folders(Path(function.__code__.co_filename).parent)
        self._files = [self._file(folder) for folder in folders]
        self._kept = self._file(writable) if writable is not None else None
        self._cache_path = str(writable)
        self.enable()

    def _file(self, folder: Path) -> Any:
        """Return Numba's reader and writer of a folder."""
        return IndexDataCacheFile(str(folder), self._impl.filename_base, self._stamp)

    def flush(self) -> None:
        """Forget what is on disk."""
        if self._kept is not None:
            self._kept.flush()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel compiled for a signature, or None where it has to be compiled."""
        target_context.refresh()
        key = self._index_key(sig, target_context.codegen())
        for file in self._files if self._enabled else ():
            try:
                entry = file.load(key)
                # A crash or a race of two processes leaves an index that names another's code.
                if entry is not None and entry[:2] == (self._stamp, key):
                    return self._impl.rebuild(target_context, entry[2])
            except Exception:
                # A damaged pickle raises almost anything.
                _discard(file)
        WATCH.begin()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, where that is possible."""
        WATCH.end()
        if self._kept is None or not self._enabled:
            _say_once("kernels are compiled anew by every process: no folder can keep them.")
            return
        key = self._index_key(sig, data.codegen)
        try:
            self._kept.save(key, (self._stamp, key, self._impl.reduce(data)))
        except OSError as error:
            _discard(self._kept)
            _say_once(f"compiled kernels cannot be kept: {error}.")
        except BaseException:
            _discard(self._kept)  # the index may already name what was not written
            raise


def _discard(file: Any) -> None:
    """Delete the index of a kernel, so that nothing is loaded by it."""
    try:
        os.unlink(file._index_path)  # noqa: PTH108
    except OSError:
        pass


@functools.cache
def _stamp() -> str:
    """Return a digest of the source of all kernels, any of which may be part of a compiled one."""
    digest = hashlib.sha256(repr(DECIDED).encode())  # the one constant that they import
    for path in sorted(_KERNELS.rglob("*.py")):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _folders(source: Path) -> tuple[list[Path], Path | None]:
    """Return the folders to look into for kernels of a folder, and the first that can be written.

    ``NUMBA_CACHE_DIR`` comes first, then the package itself, then the user's cache folder, then one
    of this user under the folder for temporary files.
    """
    below = f"{source.name}_{hashlib.sha256(str(source).encode()).hexdigest()[:40]}"
    chosen = getattr(numba.config, "CACHE_DIR", "")
    folders = [Path(chosen) / below] if chosen else []
    folders.append(source / "__pycache__")
    user = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    if user.is_absolute():  # it begins with ~ for a user without a home
        folders.append(user / below)
    for number, folder in enumerate(folders):
        if _writable(folder):
            return folders[: number + 1], folder
    private = _private_folder()
    if private is None or not _writable(private / below):
        return folders, None
    _say_once(f"compiled kernels are kept in {private}: no other folder can be written.")
    return [*folders, private / below], private / below


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private_folder() -> Path | None:
    """Return a folder for temporary files that nobody else can write, or None.

    What is loaded from it is executed, and everybody can make a folder of that name.
    """
    try:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        folder = Path(tempfile.gettempdir()) / f"subsetopt-kernels-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(state.st_mode):
        return None
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
        return None
    return folder


_said: set[str] = set()


def _say_once(what: str) -> None:
    """Log a line, the first time that anything is to be said about folders."""
    if not _said:
        _said.add(what)
        _log.warning("subsetopt: %s NUMBA_CACHE_DIR names a folder for them.", what)
