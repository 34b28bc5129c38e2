"""Where compiled kernels are kept, and what happens to damaged ones."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numba
import pytest

from subsetopt.kernels import cache, progress

# A module with a kernel so small that it compiles at once.
KERNEL = """
from subsetopt.kernels.compiling import njit

@njit(cache=True)
def one_more(x):
    return x + 1
"""

Load = Callable[[], ModuleType]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module, the home and the temporary files of a user, without kernels."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setattr(cache, "_said", set())
    watch = progress.Watch()
    monkeypatch.setattr(cache, "WATCH", watch)
    monkeypatch.setattr(progress, "WATCH", watch)
    return tmp_path


@pytest.fixture
def load(place: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads the module as a process of its own would."""

    def loaded() -> ModuleType:
        cache._folders.cache_clear()
        spec = importlib.util.spec_from_file_location("kernel", place / "kernel.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "kernel", module)
        spec.loader.exec_module(module)
        return module

    return loaded


def compiles(load: Load) -> bool:
    """Whether a process that asks for 1 + 1 has to compile for it."""
    kernel = load().one_more
    assert kernel(1) == 2
    return not kernel.stats.cache_hits


def without_cache_beside(place: Path) -> None:
    (place / "__pycache__").write_text("a file in the place of the folder")


def without_home(place: Path) -> None:
    without_cache_beside(place)
    (place / "home").write_text("a file in the place of the folder")


def the_index(place: Path) -> Path:
    (index,) = place.rglob("*.nbi")
    return index


def test_kernels_lie_beside_the_source_by_default(place: Path, load: Load, caplog) -> None:
    assert compiles(load) and not compiles(load)
    assert the_index(place).parent == place / "__pycache__"
    assert caplog.messages == []


def test_else_in_the_folder_of_the_user(place: Path, load: Load, caplog) -> None:
    without_cache_beside(place)
    assert compiles(load) and not compiles(load)
    assert the_index(place).is_relative_to(place / "home")
    assert caplog.messages == []


def test_else_in_a_private_temporary_folder_which_is_told_once(place, load: Load, caplog) -> None:
    without_home(place)
    assert compiles(load) and not compiles(load)
    folder = the_index(place).parents[1]
    assert folder.parent == place and folder.stat().st_mode & 0o777 == 0o700
    (message,) = caplog.messages
    assert message.startswith(f"subsetopt: compiled kernels are kept in {folder}")
    assert "NUMBA_CACHE_DIR" in message and "\n" not in message


def test_else_nowhere_which_is_told_once(place: Path, load: Load, caplog) -> None:
    without_home(place)
    # A folder that others can write may hold anything.
    folder = place / f"subsetopt-kernels-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert compiles(load) and compiles(load)
    assert list(place.rglob("*.nbi")) == []
    (message,) = caplog.messages
    assert "kernels are compiled anew by every process" in message


def test_a_link_is_no_private_folder(place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    (place / f"subsetopt-kernels-{os.getuid()}").symlink_to(place / "elsewhere")
    assert cache._private_folder() is None


def test_the_folder_that_was_chosen_comes_first(place: Path, load: Load, monkeypatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(place / "chosen"))
    assert compiles(load) and not compiles(load)
    assert the_index(place).is_relative_to(place / "chosen")


def test_kernels_that_lie_in_a_read_only_package_are_used(place, load: Load, monkeypatch) -> None:
    writable = cache._writable
    assert compiles(load)
    before = the_index(place)
    monkeypatch.setattr(
        cache, "_writable", lambda folder: folder.name != "__pycache__" and writable(folder)
    )
    assert not compiles(load)
    assert the_index(place) == before


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"half", b"\x80\x05", pickle.dumps(("0", 1)), None])
def test_a_damaged_file_is_replaced(place: Path, load: Load, suffix, content) -> None:
    assert compiles(load)
    (damaged,) = place.rglob(f"*.{suffix}")
    damaged.write_bytes(damaged.read_bytes()[:-1] if content is None else content)
    assert compiles(load) and not compiles(load)


def test_code_of_another_signature_under_the_name_of_this_one_is_not_run(place, load: Load) -> None:
    """Two processes that save at once leave such files: Numba numbers them alike."""
    assert compiles(load)
    (data,) = place.rglob("*.nbc")
    integers = data.read_bytes()
    for path in place.rglob("*.nb?"):
        path.unlink()
    assert load().one_more(0.5) == 1.5
    data.write_bytes(integers)
    assert load().one_more(0.5) == 1.5


def test_a_kernel_is_stale_once_any_other_changed(load: Load, monkeypatch) -> None:
    assert compiles(load)
    monkeypatch.setattr(cache, "_stamp", lambda: "of another version")
    assert compiles(load) and not compiles(load)


def test_the_stamp_follows_every_kernel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "more").mkdir()
    (place / "more" / "called.py").write_text("x = 1")
    monkeypatch.setattr(cache, "_KERNELS", place)
    before = cache._stamp.__wrapped__()
    assert cache._stamp.__wrapped__() == before
    (place / "more" / "called.py").write_text("x = 2")
    assert cache._stamp.__wrapped__() != before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_not_written_is_not_named(place, load: Load, monkeypatch, caplog, error) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cache.IndexDataCacheFile, "_save_data", fail)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            load().one_more(1)
    else:
        assert compiles(load)
        (message,) = caplog.messages
        assert "No space left on device" in message
    assert list(place.rglob("*.nbi")) == []


def test_long_compiling_is_told_once_or_to_a_listener(load: Load, monkeypatch, caplog) -> None:
    monkeypatch.setattr(progress, "_LONG", 0.0)
    kernel = load().one_more
    kernel(1)
    kernel(0.5)
    (message,) = caplog.messages
    assert "compiling kernels for their first use" in message
    assert caplog.records[0].levelno == logging.WARNING
    told: list[int] = []
    with progress.watched(told.append):
        kernel(1j)
    assert told == [2, 3]


def test_without_compiling_functions_are_what_they_were(load: Load, monkeypatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    assert type(load().one_more).__name__ == "function"
