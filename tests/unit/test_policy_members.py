"""Optional members of a policy: found where they are, and refused where they are misspelt."""

from __future__ import annotations

import ast
import enum
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_runs import make

import subsetopt as so
from subsetopt import policies
from subsetopt.policies import (
    PolicySpec,
    ScoredPolicy,
    SolverChoice,
    StatelessPolicy,
    candidate_count,
    check_members,
    has,
    list_policies,
    listens,
    make_policy,
    register_policy,
)
from subsetopt.policies.registry import unregister_policy
from subsetopt.solvers.swap import Swap

# Every optional member, and the built-in policies that have it.
OWNERS = {
    policies.WithPresample: {"importance"},
    policies.WithWeigh: {"importance", "balanced", "online-batch", "prioritized"},
    policies.WithSolver: {"obtf", "gradient-matching"},
    policies.WithLearnsFrom: {"importance", "adaselection"},
    policies.WithCurves: {"importance", "adaselection"},
    policies.WithDraw: {"online-batch", "prioritized"},
    policies.WithEpochOrder: {"uniform"},
    policies.WithRefresh: {"online-batch", "prioritized"},
    policies.WithWantsRefresh: {"online-batch"},
    policies.WithSize: {"infobatch"},
}


class Plain(StatelessPolicy):
    def propose(self, signals: policies.Signals, k: int, rng: np.random.Generator) -> so.Problem:
        return so.Problem(so.TopScores(rng.random(candidate_count(signals))), k)


class Mandatory:
    """The members of the protocol and nothing else, derived from nothing."""

    requires = frozenset({"losses"})

    def needs_scoring(self, state: object) -> bool:
        return True

    def propose(self, signals: policies.Signals, k: int, rng: np.random.Generator) -> so.Problem:
        return so.Problem(so.TopScores(signals["losses"]), k)

    def observe(self, feedback: object) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: object) -> None: ...


def method(self: object, *args: object) -> None: ...


def with_member(name: str, value: object, base: type = Plain) -> type:
    return type("Mine", (base,), {name: value})


@pytest.mark.parametrize("protocol", OWNERS)
def test_finds_a_member_where_it_is(protocol: Callable[..., object]) -> None:
    names = [row.name for row in list_policies()]
    assert {name for name in names if has(make(name), protocol)} == OWNERS[protocol]
    assert not has(Mandatory(), protocol)


def test_finds_a_member_of_the_object_alone_and_takes_none_for_absent() -> None:
    policy = Plain()
    assert not has(policy, policies.WithWeigh)
    policy.weigh = lambda solution: solution.weights  # type: ignore[attr-defined]
    assert has(policy, policies.WithWeigh)
    assert not has(with_member("presample", None)(), policies.WithPresample)


def test_tells_who_listens() -> None:
    assert not listens(Plain()) and not listens(make_policy("big-loss"))
    assert listens(Mandatory()) and listens(make_policy("importance"))
    assert listens(with_member("observe", method)())


@pytest.mark.parametrize("base", [Plain, Mandatory, object])
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("presampel", "presample"),
        ("pre_sample", "presample"),
        ("weight", "weigh"),
        ("observ", "observe"),
        ("curve", "curves"),
        ("draws", "draw"),
        ("epoch_oder", "epoch_order"),
        ("refesh", "refresh"),
        ("need_scoring", "needs_scoring"),
        ("load_statedict", "load_state_dict"),
    ],
)
def test_refuses_a_misspelt_method(name: str, nearest: str, base: type) -> None:
    policy = with_member(name, method, base)
    for made in (policy, policy()):
        with pytest.raises(so.OptionError, match=rf"^Mine has the method '{name}', .*'{nearest}'"):
            check_members(made)
    check_members(with_member(f"_{name}", method, base))
    check_members(with_member(name, 0.5, base))  # a value is no method misspelt


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("learn_from", "learns_from"),
        ("learnsfrom", "learns_from"),
        ("solvers", "solver"),
        ("require", "requires"),
        ("want_refresh", "wants_refresh"),
    ],
)
def test_refuses_a_misspelt_attribute(name: str, nearest: str) -> None:
    told = rf"^Mine has the attribute '{name}', .*'{nearest}'"
    for value in (frozenset({"upper_bound"}), property(lambda self: frozenset())):
        with pytest.raises(so.OptionError, match=told):
            check_members(with_member(name, value))
    policy = with_member("fine", 1)()
    check_members(policy)
    setattr(policy, name, 1)
    with pytest.raises(so.OptionError, match=told):
        check_members(policy)
    check_members(with_member(name, method))  # a method is no value misspelt


def test_a_name_beside_the_one_it_resembles_is_no_mistake() -> None:
    owner = with_member("presample", method)
    owner.presampled = method  # type: ignore[attr-defined]
    check_members(owner)
    derived = type("Derived", (owner,), {"presampled": method})
    check_members(derived)
    with pytest.raises(so.OptionError, match="Derived has the method 'presampel'"):
        check_members(type("Derived", (owner,), {"presampel": method}))


def test_bases_from_elsewhere_are_no_mistake() -> None:
    torch = pytest.importorskip("torch")
    for base in (dict, UserDict, enum.Enum, np.ndarray, torch.Tensor, torch.nn.Module, Mandatory):
        check_members(base)
    check_members(torch.nn.Linear(2, 2))


def test_refuses_at_registration_and_when_made_or_handed_over() -> None:
    wrong = with_member("presampel", method)
    with pytest.raises(so.OptionError, match="'presample'"):
        register_policy(PolicySpec("wrong", wrong))
    assert "wrong" not in [row.name for row in list_policies()]
    register_policy(PolicySpec("wrong", lambda: wrong()))
    try:
        with pytest.raises(so.OptionError, match="'presample'"):
            make_policy("wrong")
    finally:
        unregister_policy("wrong")

    class Candidate(ScoredPolicy):
        learn_from = frozenset({"upper_bound"})

        def scores(self, signals: policies.Signals, k: int, rng: np.random.Generator) -> np.ndarray:
            return np.asarray(signals["losses"])

    with pytest.raises(so.OptionError, match="'learns_from'"):
        make_policy("adaselection", candidates=["big-loss", Candidate()])


def test_a_selector_and_a_sampler_refuse_it_too() -> None:
    pytest.importorskip("torch")
    import subsetopt_torch as st

    with pytest.raises(so.OptionError, match="'weigh'"):
        st.BatchSelector(with_member("weihg", method)(), k=1)
    with pytest.raises(so.OptionError, match="'epoch_order'"):
        st.SubsetBatchSampler(4, with_member("epoch_orders", method)(), batch_size=2)
    assert st.BatchSelector(Mandatory(), k=1).policy.requires == {"losses"}


@pytest.mark.parametrize(
    ("choice", "solver"),
    [
        (SolverChoice("swap", {"looks": 3}), Swap(looks=3)),
        (SolverChoice("greedy"), "greedy"),
        (SolverChoice("auto"), "auto"),
        ("random", "random"),
        (Swap(choices=2), Swap(choices=2)),
        (["random", "greedy"], ["random", "greedy"]),
    ],
)
def test_a_selector_resolves_what_auto_stands_for(choice: Any, solver: Any) -> None:
    named_policy = pytest.importorskip("subsetopt_torch.selection.named_policy")
    named = named_policy.NamedPolicy.of(with_member("solver", choice)(), None)
    assert named.solve_with("auto", 0).keywords["solver"] == solver
    assert named.solve_with("exact", 0).keywords["solver"] == "exact"
    assert named.solve_with("auto", 0, options={"choices": 2}).keywords["solver"] == "auto"


def test_a_selector_refuses_a_choice_of_no_solver() -> None:
    pytest.importorskip("torch")
    import subsetopt_torch as st

    with pytest.raises(so.OptionError, match=r"no option 'lokos'\. Did you mean 'looks'\?"):
        st.BatchSelector(with_member("solver", SolverChoice("swap", {"lokos": 3}))(), k=1)
    with pytest.raises(so.SolverNotFoundError, match=r"'swpa'\. Did you mean 'swap'\?"):
        st.BatchSelector(with_member("solver", SolverChoice("swpa"))(), k=1)


def test_policies_know_no_solver() -> None:
    for path in Path(policies.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                module = str(node.module)
                assert not module.startswith(("subsetopt.solvers", "subsetopt.registry")), path.name
