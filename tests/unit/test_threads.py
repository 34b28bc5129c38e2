"""How many threads work at a time."""

from __future__ import annotations

import os
import threading

import pytest

from subsetopt.kernels import threads


@pytest.mark.parametrize(
    ("omp", "numba", "expected"),
    [
        (None, None, 4),
        ("1", None, 1),
        (None, "1", 1),
        ("2", "3", 2),
        ("3,1", None, 3),
        ("16", "16", 4),
        ("", "0", 4),
        ("many", "-1", 4),
    ],
)
def test_the_environment_limits_threads(
    omp: str | None, numba: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)
    for variable, value in (("OMP_NUM_THREADS", omp), ("NUMBA_NUM_THREADS", numba)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert threads.cores() == expected


def test_with_one_thread_the_caller_does_all_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workers: list[int] = []
    threads.share(lambda part: workers.append(threading.get_ident()), range(100))
    assert workers == [threading.get_ident()] * 100
