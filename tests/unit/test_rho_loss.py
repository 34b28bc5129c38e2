"""rho-loss: its table of irreducible losses, and ids that are not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import make_policy

TABLE = np.array([0.5, np.nan, 2.0, 0.25])


def score(irreducible: Any, losses: Any, ids: Any) -> list[float]:
    policy = make_policy("rho-loss", irreducible=irreducible)
    signals = {"losses": np.array(losses), "ids": np.array(ids)}
    return policy.scores(signals, 1, np.random.default_rng(0)).tolist()  # type: ignore[attr-defined]


def test_an_array_a_mapping_and_a_file_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "irreducible.npy", TABLE.astype(np.float32))
    path = tmp_path / "irreducible.npy"
    for given in (TABLE, TABLE.tolist(), {0: 0.5, 2: 2, 3: 0.25}, path, str(path)):
        assert score(given, [1.0, 1.0, 4.0], [3, 0, 2]) == [0.75, 0.5, 2.0]


def test_ids_of_a_mapping_may_be_anything() -> None:
    assert score({"b": 1.0, "a": 0.0}, [3.0, 5.0], ["a", "b"]) == [3.0, 4.0]


def test_the_table_is_the_policys_own() -> None:
    table, mapping = TABLE.copy(), {0: 0.5}
    of_array, of_mapping = (make_policy("rho-loss", irreducible=g) for g in (table, mapping))
    table[0] = mapping[0] = 9.0
    for policy in (of_array, of_mapping):
        signals = {"losses": np.ones(1), "ids": np.zeros(1, dtype=int)}
        assert policy.scores(signals, 1, np.random.default_rng(0)).tolist() == [0.5]  # type: ignore[attr-defined]


def test_leaves_noisy_and_learned_samples_alone() -> None:
    # Noisy samples are hard for both models, learned ones are easy now; others have a high score.
    irreducible = {"noisy": 5.0, "learned": 0.1, "worth": 0.1}
    policy = make_policy("rho-loss", irreducible=irreducible)
    signals = {
        "losses": np.array([5.1, 0.15, 2.0]),
        "ids": np.array(["noisy", "learned", "worth"]),
    }
    problem = policy.propose(signals, 1, np.random.default_rng(0))
    assert so.solve(problem).indices.tolist() == [2]


@pytest.mark.parametrize(
    ("given", "ids", "message"),
    [
        (TABLE, [0, 4], r"no irreducible loss of id 4 \(position 1\).*4 losses, ids 0 to 3"),
        (TABLE, [-1, 0], r"of id -1 \(position 0\)"),
        (TABLE, [0, 1], r"of id 1 \(position 1\)"),
        ({"a": 1.0}, ["a", "b"], r"of id 'b' \(position 1\): it has a mapping of 1 ids"),
        (TABLE, [0.0, 1.0], "ids must be integers .* dtype float64; for other ids pass a mapping"),
        (TABLE, [[0], [1]], r"ids must have shape \(n,\), got \(2, 1\)"),
    ],
)
def test_an_id_that_is_not_known(given: Any, ids: Any, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        score(given, [1.0, 1.0], ids)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"needs the irreducible losses .*subsetopt_torch.irreducible_losses computes them"),
        ({"a": "much"}, "irreducible loss of id 'a' must be a number, got 'much'"),
        (np.zeros((2, 2)), r"vector of real numbers .* got shape \(2, 2\)"),
        (np.array(["a"]), "vector of real numbers .* dtype <U1"),
        ("no/such/file.npy", r"cannot be read from no/such/file.npy .*No such file"),
    ],
)
def test_a_table_that_is_none(given: Any, message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make_policy("rho-loss", irreducible=given)


def test_a_file_that_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "losses.npy"
    path.write_text("0.5, 0.25", encoding="utf-8")
    with pytest.raises(so.OptionError, match=r"pass the path of an array saved by numpy.save"):
        make_policy("rho-loss", irreducible=path)
