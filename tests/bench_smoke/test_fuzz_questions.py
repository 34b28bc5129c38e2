"""The fuzzer's own arithmetic: its optimum, and what it says of true and of false claims."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest

import subsetopt as so
from benchmarks.commands.fuzz import check_question, claims
from benchmarks.harness.fuzz_questions import Question, ask

LOSSES = np.array([1.0, 2.0, 3.5, 7.0, 7.25])


def test_every_objective_and_rule_is_drawn() -> None:
    drawn = {name for i in range(400) for name in ask(0, i).features}
    assert {"mean", "vectors", "top", "scored", "facility", "center"} <= drawn
    assert {"float16", "outlier of 1e8 to 1e10", "huge", "tiny", "offset"} <= drawn
    assert {"quotas of one", "labels", "sentinel costs", "infinite capacity"} <= drawn
    assert {"whole costs", "decimal costs", "include", "exclude", "at most"} <= drawn


def test_the_optimum_is_that_of_a_plain_loop() -> None:
    question = Question("mean", {"losses": LOSSES}, 2, {"costs": [3, 1, 2, 2, 9], "capacity": 5})
    residuals = [
        abs(LOSSES.mean() - LOSSES[list(pair)].mean())
        for pair in combinations(range(5), 2)
        if sum([3, 1, 2, 2, 9][i] for i in pair) <= 5
    ]
    assert question.best == pytest.approx(min(residuals))


def test_whole_and_decimal_costs_are_added_exactly() -> None:
    whole = Question("top", {"scores": LOSSES}, 2, {"costs": [1e12] * 5, "capacity": 2e12 - 1})
    assert not whole.subsets[whole.possibly].size
    decimal = Question("top", {"scores": LOSSES}, 3, {"costs": [0.1] * 5, "capacity": 0.3})
    assert decimal.subsets[decimal.possibly].size


def test_true_claims_pass_and_false_ones_do_not() -> None:
    question = Question("top", {"scores": LOSSES}, 2)
    answer = so.solve(question.problem(), "topk")
    assert claims(question, answer, demanding=True) == ("", "")
    worse = dataclasses.replace(answer, indices=np.array([0, 1]), objective=3.0)
    assert claims(question, worse, demanding=True)[0] == "wrongly certified"
    beyond = dataclasses.replace(answer, bound=14.0)
    assert claims(question, beyond, demanding=True)[0] == "wrongly certified"
    many = dataclasses.replace(answer, indices=np.array([2, 3, 4]))
    assert claims(question, many, demanding=True)[0] == "infeasible"
    denied = dataclasses.replace(answer, status=so.Status.INFEASIBLE)
    assert claims(question, denied, demanding=True)[0] == "wrongly certified"


def test_questions_without_a_failure() -> None:
    failures, features, answers = check_question(0, 1)
    assert failures == [] and features and answers["answers"] > 1
