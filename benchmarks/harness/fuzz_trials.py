"""One fuzzed problem: the solvers that are asked, in which ways, and what they did wrong."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import subsetopt as so
from benchmarks.harness.fuzz_claims import Oracle, same
from benchmarks.harness.fuzz_inclusion import inclusion_fault
from benchmarks.harness.fuzz_questions import Question, ask

__all__ = ["BACKENDS", "Trial", "run_trial"]

BACKENDS = ("gurobi", "cpsat", "scip", "highs")
# These solvers find a subset wherever there is one; without a limit, the last proves what it finds
# unless weights are to be fitted.
_SURE = {"auto", "swap", "exact", "lagrangian", "exhaustive"}
_COMPLETE = {"exhaustive"}
# Solvers besides "auto" that a problem is given to, at most, and how often a slow one is put off
# for others.
_OTHERS, _PUT_OFF = 2, 0.6
# A backend gets this many seconds; small problems take milliseconds.
_BACKEND_LIMIT = 20.0
_SHORT = 0.002
# Work limits; those of slow solvers, whose steps take longer.
_WORKS, _FEWER = (None, None, 300, 20_000), (None, 30, 30, 300)
# How often an answer is asked for again, together with others, or in other ways.
_TIMED, _AGAIN, _TOGETHER, _CHAINED, _RETURNING, _WARM = 0.01, 0.03, 0.03, 0.02, 0.05, 0.2
# What the library may refuse to state, in words of its messages.
_REFUSALS = {
    "overflow": "numbers overflow",
    "vanishes in float64": "numbers vanish",
    "both name": "include and exclude contradict",
    "is a masked array": "entries are hidden",
    "of type": "no label can equal a key of quotas",
    "which no label equals": "a key of quotas seems misspelt",
}

Failure = tuple[str, str, str]


@dataclass(slots=True)
class Trial:
    """What became of one question: failures (solver, kind, what), and counts for the tables."""

    failures: list[Failure] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def fail(self, solver: str, kind: str, what: str) -> None:
        self.failures.append((solver, kind, what))


def run_trial(
    seed: int, i: int, *, backends: bool = False, solvers: Sequence[str] | None = None
) -> Trial:
    """Draw question i of a seed, ask solvers, and judge what they say.

    Parameters
    ----------
    seed, i
        What the question is made from.
    backends
        Whether all mixed-integer backends are asked, not some native solvers.
    solvers
        Names of solvers to ask in their place, where they take the problem; None for none.
    """
    question = ask(seed, i, backends=backends)
    rng = np.random.default_rng((seed, i, 3 + backends))
    trial = Trial()
    problem = _stated(question, trial)
    if problem is None:
        return trial
    trial.counts["problems"] += 1
    trial.counts.update(f"with {name}" for name in question.features)
    oracle = Oracle(question)
    trial.counts["problems without an answer"] += oracle.impossible
    answers = []
    rows = {row.name: row for row in so.list_solvers() if row.obstacle(problem) is None}
    if solvers is None:
        solvers = _drawn(question, rows, rng, backends=backends)
    for name in solvers:
        if name not in rows and name != "auto":
            continue
        features = None if name == "auto" else rows[name].features
        keywords = _keywords(question, oracle, name, features, rng, (seed, i))
        answers.append((name, keywords, _ask(problem, name, keywords, trial)))
    for _, _, answer in answers:
        if answer is not None:
            oracle.learn(answer)
    for name, keywords, answer in answers:
        if answer is not None:
            _judge(trial, oracle, name, keywords, answer)
            trial.counts[f"answers of {name}"] += 1
    _ask_again(trial, question, oracle, problem, answers, rng, (seed, i))
    return trial


def _drawn(
    question: Question, rows: Iterable[str], rng: np.random.Generator, *, backends: bool
) -> list[str]:
    """Return "auto" and some other solvers, in a random order; or all backends that can."""
    if backends:
        return [name for name in rows if name in BACKENDS and name in _installed()]
    others = [name for name in rows if name not in BACKENDS]
    if not question.enumerable and "exhaustive" in others:
        others.remove("exhaustive")
    drawn = [others[j] for j in rng.permutation(len(others))]
    put_off = {name for name in drawn if _is_slow(name) and rng.random() < _PUT_OFF}
    drawn.sort(key=put_off.__contains__)
    return ["auto", *drawn[: int(rng.integers(1, _OTHERS + 1))]]


def _is_slow(name: str) -> bool:
    return name == "exhaustive" or name.endswith("frank-wolfe")


@cache
def _installed() -> frozenset[str]:
    return frozenset(so.available_solvers())


def _stated(question: Question, trial: Trial) -> so.Problem | None:
    """Return the problem; None where the library refuses it, rightly or not."""
    try:
        problem = question.problem()
    except so.ProblemError as error:
        why = next((why for words, why in _REFUSALS.items() if words in str(error)), None)
        if why is None:
            trial.fail("Problem", "inconsistent", f"refused: {error}")
        trial.counts[f"refused: {why}"] += 1
        return None
    except Exception:
        trial.fail("Problem", "crashed", traceback.format_exc(limit=-2))
        return None
    if question.masked:
        trial.fail("Problem", "inconsistent", "hidden entries are accepted")
        return None
    return problem


def _keywords(
    question: Question,
    oracle: Oracle,
    name: str,
    features: Set[str] | None,
    rng: np.random.Generator,
    seed: tuple[int, ...],
) -> dict[str, Any]:
    """Return how a solver is asked: limits, a warm start, what Ctrl-C would do."""
    keywords: dict[str, Any] = {"seed": seed}
    if name in BACKENDS:
        keywords["time_limit"] = _BACKEND_LIMIT if question.enumerable else 1.0
    elif rng.random() < _TIMED:
        keywords["time_limit"] = _SHORT
    else:
        works = _FEWER if name.endswith("frank-wolfe") else _WORKS
        if (work := works[rng.integers(len(works))]) is not None:
            keywords["max_iterations"] = work
    if rng.random() < _RETURNING:
        keywords["on_interrupt"] = "return"
    takes = features is None or "warm_start" in features
    if takes and question.kind != "design" and rng.random() < _WARM:
        if (start := oracle.start(rng)) is not None:
            keywords["warm_start"] = start
    return keywords


def _ask(
    problem: so.Problem, name: str, keywords: dict[str, Any], trial: Trial
) -> so.Solution | None:
    try:
        return so.solve(problem, name, **keywords)
    except so.SolverLicenseError:
        trial.counts[f"too large for the license of {name}"] += 1
        return None
    except Exception:
        trial.fail(name, "crashed", traceback.format_exc(limit=-2))
        return None


def _judge(
    trial: Trial, oracle: Oracle, name: str, keywords: dict[str, Any], answer: so.Solution
) -> None:
    limited = "time_limit" in keywords or "max_iterations" in keywords
    restricted = oracle.question.kind == "scored"
    kind, what = oracle.judge(
        answer,
        demanding=name in _SURE and not (limited and (restricted or name == "exhaustive")),
        complete=name in _COMPLETE and not limited and oracle.question.kind != "fitted",
    )
    if not kind and "warm_start" in keywords:
        kind, what = oracle.worse_than(answer, keywords["warm_start"])
    if kind:
        trial.fail(name, kind, f"{what} ({_words(keywords)})")


def _words(keywords: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items())


def _ask_again(
    trial: Trial, question: Question, oracle: Oracle, problem: so.Problem,
    answers: list[tuple[str, dict[str, Any], so.Solution | None]], rng: np.random.Generator,
    seed: tuple[int, ...],
) -> None:  # fmt: skip
    """Ask once more in other ways, which must change nothing."""
    name, keywords, answer = answers[rng.integers(len(answers))] if answers else ("", {}, None)
    if answer is None:
        return
    _checked(trial, name, lambda: oracle.audit(problem, answer, rng))
    if question.kind == "design":
        _checked(trial, "inclusion_probabilities", lambda: inclusion_fault(rng))
    if "time_limit" not in keywords and rng.random() < _AGAIN:
        trial.counts["asked again"] += 1
        again = _ask(problem, name, {**keywords, "on_interrupt": "return"}, trial)
        if again is not None and not same(answer, again):
            trial.fail(name, "inconsistent", f"{answer!r}, then {again!r} ({_words(keywords)})")
    if name not in BACKENDS and rng.random() < _TOGETHER:
        _checked(trial, "many", lambda: _together(trial, question, problem, rng, seed))
    if len(answers) > 1 and rng.random() < _CHAINED:
        trial.counts["asked as a chain"] += 1
        chain = _ask(problem, [answers[-1][0], "auto"], {"seed": seed}, trial)  # type: ignore[arg-type]
        if chain is not None:
            _judge(trial, oracle, "chain", {"seed": seed}, chain)


def _checked(trial: Trial, name: str, check: Callable[[], tuple[str, str]]) -> None:
    """Note what a check finds; an exception is a crash."""
    try:
        kind, what = check()
    except Exception:
        kind, what = "crashed", traceback.format_exc(limit=-2)
    if kind:
        trial.fail(name, kind, what)


def _together(
    trial: Trial, question: Question, problem: so.Problem, rng: np.random.Generator,
    seed: tuple[int, ...],
) -> tuple[str, str]:  # fmt: skip
    """Compare the answers to several problems at once with those one by one."""
    trial.counts["asked together"] += 1
    n = max(2, question.n)
    vectors = rng.exponential(size=(3, n)).round(int(rng.integers(0, 9)))
    if question.kind == "mean" and question.n == n:
        losses = question.data["losses"]
        vectors = np.stack([losses, losses[::-1], np.roll(losses, 1)])
    k = min(n, max(1, question.k))
    solver = ("auto", "swap")[rng.integers(2)]
    rows = so.select_many(vectors, k, seed=seed, solver=solver)
    for row, (one, losses) in enumerate(zip(rows, vectors, strict=True)):
        alone = so.select(losses, k, seed=(*seed, row), solver=solver)
        if not same(one, alone):
            return "inconsistent", f"select_many, row {row} of {vectors!r}: {one!r}, {alone!r}"
    problems = [problem, *(so.Problem(so.MeanMatching(losses), k) for losses in vectors)]
    for row, one in enumerate(so.solve_many(problems, seed=seed)):
        alone = so.solve(problems[row], seed=(*seed, row))
        if not same(one, alone):
            return "inconsistent", f"solve_many, problem {row}: {one!r}, alone {alone!r}"
    return "", ""
