"""`benchmarks streaming`: a stream, served by another process and trained on in this one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.harness.streaming.clicks import Clicks

pytest.importorskip("torch")

from benchmarks.harness.streaming.methods import METHODS, RareClass
from benchmarks.harness.streaming.model import click_model
from benchmarks.harness.streaming.serving import ServingProcess
from benchmarks.harness.streaming.training import KnownOutcomes, Run, train
from subsetopt import solve

BY_NAME = {method.name: method for method in METHODS}
HOURS, DELAY, K = 9, 3, 8
STREAM = Clicks(seed=0, hours=HOURS, impressions=64)


@pytest.fixture(scope="module")
def serving() -> Iterator[ServingProcess]:
    with ServingProcess() as process:
        yield process


def run(serving: ServingProcess, name: str) -> Run:
    return train(BY_NAME[name], STREAM, serving, delay=DELAY, k=K, lr=1.0)


def test_two_processes_share_one_ledger(serving: ServingProcess) -> None:
    done = run(serving, "balanced, recorded")
    known = (HOURS - DELAY) * STREAM.impressions
    assert done.served_by != os.getpid()
    assert (done.recorded, done.looked_up, done.scored) == (known, known, 0)
    assert done.trained == K * (HOURS - DELAY)


def test_a_run_repeats_itself(serving: ServingProcess) -> None:
    first, again = (run(serving, "balanced, recorded") for _ in range(2))
    assert np.array_equal(first.losses, again.losses)


def test_nothing_is_learned_before_an_outcome_is_known(serving: ServingProcess) -> None:
    everything = run(serving, "everything")
    assert everything.losses[: DELAY + 1] == pytest.approx(np.log(2.0))
    assert everything.losses[DELAY + 1] < np.log(2.0)
    assert everything.trained == (HOURS - DELAY) * STREAM.impressions


def test_scores_made_now_are_counted(serving: ServingProcess) -> None:
    done = run(serving, "balanced, scored now")
    assert (done.scored, done.looked_up) == ((HOURS - DELAY) * STREAM.impressions, 0)


def test_a_serving_process_that_was_killed_is_an_error(tmp_path: Path) -> None:
    url = f"dense:{tmp_path}/clicks.ledger"
    with (
        ServingProcess() as process,
        pytest.raises(RuntimeError, match="serving process ended with exit code -9"),
        process.of(STREAM, DELAY, url) as served_by,
    ):
        os.kill(served_by, signal.SIGKILL)
        process.serve(0, click_model(STREAM.width))


def test_the_command(tmp_path: Path) -> None:
    arguments = [
        *("streaming", "--hours", "5", "--impressions", "32", "--k", "4", "--delay", "2"),
        *("--seeds", "1", "--methods", "balanced, recorded", "--out", str(tmp_path)),
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "streaming.json").read_text())
    uniform, recorded = found["tables"][0]["rows"]
    assert (uniform[0], recorded[0]) == ("uniform", "balanced, recorded")
    assert uniform[2] == recorded[2] == "2.4"  # 4 of 32, in 3 of 5 hours
    assert "worst of 1 seeds" in found["checks"][0]["what"]


def test_a_method_that_is_none() -> None:
    with pytest.raises(Exception, match=r"no method named 'obtf'\. Known: everything; uniform;"):
        CliRunner().invoke(app, ["streaming", "--methods", "obtf"], catch_exceptions=False)


def test_the_stream_is_what_its_model_says() -> None:
    stream = Clicks(seed=3, hours=400)
    weights = stream.weights()
    hours = [stream.hour(number, weights[number]) for number in range(stream.hours)]
    ids = np.concatenate([hour.ids for hour in hours])
    clicks = np.concatenate([hour.clicks for hour in hours])
    chances = np.concatenate([hour.chances for hour in hours])
    assert np.array_equal(ids, np.arange(400 * 256))
    assert 0.04 < clicks.mean() < 0.09
    assert abs(clicks.mean() - chances.mean()) < 5 * np.sqrt(chances.mean() / clicks.size)
    turned = np.sqrt(1.0 - 0.05**2) * weights[:-1] - weights[1:]
    assert turned.std() == pytest.approx(0.05 / np.sqrt(20), rel=0.05)


def test_the_trainer_reads_whole_hours_in_order() -> None:
    hours = list(KnownOutcomes(STREAM))
    assert len(hours) == HOURS
    weights = STREAM.weights()
    ids, features, clicks = hours[4]
    again = STREAM.hour(4, weights[4])
    assert np.array_equal(ids, again.ids) and ids[0] == 4 * STREAM.impressions
    assert np.array_equal(features, again.features) and np.array_equal(clicks, again.clicks)


@pytest.mark.parametrize("count", [0, 3, 20])
def test_the_rare_class_is_taken_whole_and_the_rest_weighted(count: int) -> None:
    clicks = np.zeros(100)
    clicks[:count] = 1.0
    problem = RareClass().propose({"targets": clicks}, 10, np.random.default_rng(0))
    chances = problem.objective.inclusion
    assert chances.sum() == pytest.approx(10.0)
    assert (chances[:count] == min(1.0, 8.0 / max(count, 1))).all()
    solution = solve(problem, seed=0)
    assert solution.weights == pytest.approx(1.0 / (100 * chances[solution.indices]))
