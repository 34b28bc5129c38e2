"""BatchSelector: sizes, devices, dtypes, seeds, bad losses, fallbacks, state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from selector_parts import DEVICES, POLICIES, losses, with_bad

import subsetopt as so
from subsetopt import registry
from subsetopt.solvers.spec import CONSTRAINTS

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.selection.transfer import to_device  # noqa: E402


@dataclass(frozen=True)
class Failing:
    """Fails in the way its option says."""

    how: str = "raise"

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        errors = {
            "raise": so.SolverError("it broke"),
            "license": so.SolverLicenseError("too many variables for the free license"),
            "missing": so.SolverUnavailableError("pip install it"),
        }
        if self.how in errors:
            raise errors[self.how]
        if self.how == "wrong":
            return so.RawResult(np.arange(problem.n))
        if self.how == "interrupt":
            return so.RawResult(np.arange(problem.k), stop_reason=so.StopReason.INTERRUPTED)
        return so.RawResult(None, stop_reason=so.StopReason.TIME)


@pytest.fixture
def failing() -> Iterator[str]:
    so.register_solver(
        so.SolverSpec("failing", Failing, ("MeanMatching", "TopScores"), CONSTRAINTS | {"seed"})
    )
    yield "failing"
    registry.unregister_solver("failing")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
def test_contract(policy: str, device: str) -> None:
    vector = losses(device=device)
    picked = st.BatchSelector(policy, rate=0.1, seed=0)(vector)
    assert picked.indices.dtype == torch.int64 and picked.indices.shape == (13,)
    assert {t.device.type for t in (picked.indices, picked.weights, picked.mask)} == {device}
    assert picked.weights.dtype == torch.float32
    torch.testing.assert_close(picked.weights.cpu(), torch.full((13,), 1 / 13))
    assert picked.mask.shape == (128,) and picked.mask.dtype == torch.bool
    assert torch.equal(picked.mask.nonzero()[:, 0], picked.indices)
    assert isinstance(picked.solution, so.Solution)
    assert np.array_equal(picked.solution.indices, picked.indices.cpu().numpy())
    assert (picked.excluded, picked.fallback, len(picked)) == (0, None, 13)


def test_obtf_matches_the_mean() -> None:
    vector = losses()
    picked = st.BatchSelector("obtf", rate=0.1, seed=0)(vector)
    assert picked.solution.status is so.Status.OPTIMAL
    subset = (vector[picked.indices].double() * picked.weights.double()).sum()
    assert abs(float(subset - vector.double().mean())) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int64", "float32"),
    ],
)
def test_dtypes(dtype: str, weights: str) -> None:
    vector = (losses() * 10).to(getattr(torch, dtype))
    picked = st.BatchSelector("obtf", k=7, seed=0)(vector)
    assert picked.weights.dtype == getattr(torch, weights)
    assert len(picked) == 7


def test_gradients_are_ignored_and_losses_unchanged() -> None:
    vector = losses().requires_grad_()
    before = vector.detach().clone()
    picked = st.BatchSelector("obtf", k=7, seed=0)(vector)
    assert not picked.weights.requires_grad
    assert torch.equal(vector.detach(), before)
    strided = torch.stack([losses(), losses()], 1)[:, 0]
    assert torch.equal(st.BatchSelector("obtf", k=7, seed=0)(strided).indices, picked.indices)


def test_indices_and_weights_travel_in_one_piece() -> None:
    weights = np.array([0.1, 1 / 3, 1e-300])
    for dtype in (torch.float64, torch.float32):
        moved = to_device(np.array([2, 5, 7]), weights, torch.device("cpu"), dtype)
        assert moved[0].tolist() == [2, 5, 7]
        assert torch.equal(moved[1], torch.as_tensor(weights).to(dtype))


@pytest.mark.parametrize(
    ("size", "n", "expected"),
    [
        ({"rate": 0.1}, 128, 13),
        ({"rate": 0.1}, 3, 1),
        ({"rate": 0.0}, 9, 0),
        ({"rate": 1.0}, 9, 9),
        ({"k": 4}, 9, 4),
        ({"k": 40}, 9, 9),
        ({"k": 0}, 9, 0),
        ({"k": 4}, 0, 0),
        ({"rate": 0.5}, 0, 0),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_sizes(size: dict[str, Any], n: int, expected: int, policy: str) -> None:
    selector = st.BatchSelector(policy, seed=0, **size)
    assert selector.size(n) == expected
    picked = selector(losses(n))
    assert len(picked) == expected and picked.mask.sum() == expected
    assert picked.solution.has_solution


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "pass rate .* or k .*, one of them; got rate=None, k=None"),
        ({"rate": 0.1, "k": 3}, "one of them; got rate=0.1, k=3"),
        ({"rate": 1.5}, r"rate must be in \[0, 1\], got 1.5"),
        ({"k": -1}, "k must be an integer >= 0, got -1"),
        ({"k": 0.5}, "k must be an integer >= 0, got 0.5; for a fraction use rate"),
        ({"k": True}, "k must be an integer"),
    ],
)
def test_wrong_sizes(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        st.BatchSelector("obtf", **keywords)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"policy": "obft"}, so.OptionError, "Did you mean 'obtf'"),
        ({"policy": object()}, so.OptionError, "policy object, got object"),
        ({"policy_options": {"cardinalty": 1}}, so.OptionError, "Did you mean 'cardinality'"),
        ({"solver": "swop"}, so.SolverNotFoundError, "Did you mean 'swap'"),
        ({"solver": "swap", "options": {"strat": 1}}, so.OptionError, "no option 'strat'"),
        (
            {"solver": "auto", "options": {"start": 1}},
            so.OptionError,
            "'random', 'stratified' or 'window', got 1",
        ),
        ({"time_limit": -1}, so.OptionError, "time_limit must be at least 0"),
        ({"max_iterations": -1}, so.OptionError, "max_iterations must be an integer >= 0"),
        ({"seed": -1}, so.OptionError, "nonnegative int or None, got -1"),
        ({"seed": 0.5}, so.OptionError, "nonnegative int or None, got 0.5"),
        ({"nonfinite": "exclde"}, so.OptionError, "Did you mean 'exclude'"),
        ({"constraints": {"quota": 1}}, so.OptionError, "no constraint named 'quota'"),
    ],
)
def test_misuse_is_told_when_the_selector_is_made(
    keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        st.BatchSelector(**{"policy": "obtf", "rate": 0.1, **keywords})


def test_options_of_a_policy_object_belong_into_it() -> None:
    policy = so.policies.make_policy("obtf")
    assert len(st.BatchSelector(policy, rate=0.1, seed=0)(losses())) == 13
    with pytest.raises(so.OptionError, match="belong into the policy object"):
        st.BatchSelector(policy, rate=0.1, policy_options={"cardinality": "exact"})


def test_a_solver_that_cannot_take_the_objective_is_misuse() -> None:
    selector = st.BatchSelector("uniform", rate=0.1, solver="swap")
    with pytest.raises(so.UnsupportedProblemError, match=r"swap.*TopScores"):
        selector(losses())


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.tensor(1.0), r"got \(\); a reduced loss .* reduction='none'"),
        (torch.ones(4, 1), r"got \(4, 1\); reduce it to one number per sample"),
        (torch.ones(4, dtype=torch.complex64), "real numbers, got dtype torch.complex64"),
    ],
)
def test_losses_that_are_no_vector(vector: torch.Tensor, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        st.BatchSelector("obtf", k=1)(vector)


# Bad losses


@pytest.mark.parametrize("policy", POLICIES)
def test_nonfinite_losses_raise_with_their_positions(policy: str) -> None:
    selector = st.BatchSelector(policy, k=5, seed=0)
    with pytest.raises(
        so.ProblemError, match=r"positions 3 \(nan\), 10 \(inf\), 20 \(-inf\) of the batch"
    ):
        selector(with_bad())
    assert selector.step == 0 and selector.excluded == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_nonfinite_losses_are_left_out(policy: str) -> None:
    selector = st.BatchSelector(policy, k=5, seed=0, nonfinite="exclude")
    vector = with_bad()
    for count in (1, 2):
        picked = selector(vector)
        assert picked.excluded == 3 and selector.excluded == 3 * count
        assert len(picked) == 5 and not {3, 10, 20} & set(picked.indices.tolist())
    assert vector[3].isnan()


def test_the_mean_is_that_of_the_finite_losses() -> None:
    vector = with_bad().double()
    picked = st.BatchSelector("obtf", k=8, seed=0, nonfinite="exclude")(vector)
    good = vector[vector.isfinite()].mean()
    assert abs(float((vector[picked.indices] * picked.weights).sum() - good)) < 1e-6


def test_fewer_finite_losses_than_k() -> None:
    selector = st.BatchSelector("obtf", k=5, seed=0, nonfinite="exclude")
    picked = selector(torch.tensor([1.0, float("nan"), 2.0, float("nan"), float("nan"), 3.0]))
    assert picked.indices.tolist() == [0, 2, 5]
    torch.testing.assert_close(picked.weights, torch.full((3,), 1 / 3))
    nothing = selector(torch.full((4,), float("nan")))
    assert len(nothing) == 0 and nothing.excluded == 4


# Fallbacks


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "SolverError: it broke"),
        ("license", "SolverLicenseError: too many variables"),
        ("missing", "SolverUnavailableError: pip install it"),
        ("nothing", "No subset was found"),
        ("wrong", "infeasible subset"),
    ],
)
def test_a_failed_selection_is_a_uniform_draw_and_is_told(
    failing: str, how: str, reason: str
) -> None:
    selector = st.BatchSelector("obtf", k=6, seed=0, solver=failing, options={"how": how})
    with pytest.warns(st.SelectionWarning, match="gave no subset.*uniform draw") as caught:
        first = selector(losses())
    assert len(caught) == 1 and reason in str(caught[0].message)
    assert caught[0].filename == __file__
    second = selector(losses())  # a second warning would be an error here
    assert selector.fallbacks == 2 and selector.step == 2
    for picked in (first, second):
        assert picked.fallback is not None and reason in picked.fallback
        assert len(picked) == 6 and not picked.solution.has_solution
        torch.testing.assert_close(picked.weights, torch.full((6,), 1 / 6))
    assert first.indices.tolist() != second.indices.tolist()
    again = st.BatchSelector("obtf", k=6, seed=0, solver=failing, options={"how": how})
    with pytest.warns(st.SelectionWarning):
        assert torch.equal(again(losses()).indices, first.indices)


def test_an_interrupt_ends_the_training_loop(failing: str) -> None:
    selector = st.BatchSelector("obtf", k=6, solver=failing, options={"how": "interrupt"})
    with pytest.raises(KeyboardInterrupt):
        selector(losses())
    assert selector.fallbacks == 0


def test_no_time_at_all() -> None:
    selector = st.BatchSelector("obtf", k=6, seed=0, time_limit=0)
    with pytest.warns(st.SelectionWarning):
        assert len(selector(losses())) == 6


def test_a_time_limit_is_enough_for_an_answer() -> None:
    picked = st.BatchSelector("obtf", k=6, seed=0, time_limit=0.5)(losses())
    assert picked.fallback is None


def test_a_list_of_solvers_falls_over(failing: str) -> None:
    picked = st.BatchSelector("obtf", k=6, seed=0, solver=[failing, "swap"])(losses())
    assert picked.fallback is None and picked.solution.solver == "swap"


# Seeds and state


@pytest.mark.parametrize("policy", ["uniform", "proportional-loss", "obtf"])
def test_seed_step_and_rank(policy: str) -> None:
    def run(**keywords: Any) -> list[list[int]]:
        selector = st.BatchSelector(policy, rate=0.1, **keywords)
        return [selector(losses()).indices.tolist() for _ in range(4)]

    base = run(seed=1)
    assert run(seed=1) == base == run(seed=1, rank=0)
    assert len({tuple(indices) for indices in base}) == 4
    for other in (run(seed=2), run(seed=1, rank=1), run(), run()):
        assert all(a != b for a, b in zip(base, other, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_selector_goes_on(policy: str) -> None:
    selector = st.BatchSelector(policy, rate=0.1, nonfinite="exclude")
    selector(with_bad())
    state = selector.state_dict()
    expected = [selector(losses(64)).indices.tolist() for _ in range(3)]
    other = st.BatchSelector(policy, rate=0.1, seed=123, nonfinite="exclude")
    other.load_state_dict(state)
    assert [other(losses(64)).indices.tolist() for _ in range(3)] == expected
    assert other.state_dict() == selector.state_dict()
    assert (other.step, other.excluded) == (4, 3)


def test_a_state_that_does_not_fit() -> None:
    state = st.BatchSelector("obtf", rate=0.1).state_dict()
    with pytest.raises(so.OptionError, match="saved with policy 'obtf', this selector has 'unif"):
        st.BatchSelector("uniform", rate=0.1).load_state_dict(state)
    with pytest.raises(so.OptionError, match=r"lacks \['policy', 'seed'"):
        st.BatchSelector("obtf", rate=0.1).load_state_dict(
            {k: v for k, v in state.items() if k not in ("seed", "policy", "step")}
        )


def test_no_global_random_state_is_touched() -> None:
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    for policy in POLICIES:
        st.BatchSelector(policy, rate=0.1)(losses())
    assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_repr() -> None:
    assert repr(st.BatchSelector("obtf", k=3)) == "BatchSelector('obtf', k=3, solver='auto')"
    picked = st.BatchSelector("obtf", k=3, nonfinite="exclude", seed=0)(with_bad())
    assert repr(picked) == "Picked(3 of 64, excluded=3)"


def test_nothing_warns_in_ordinary_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        st.BatchSelector("obtf", rate=0.1)(losses())


def test_a_policy_says_what_auto_stands_for_unless_the_user_does() -> None:
    losses = torch.from_numpy(np.random.default_rng(0).lognormal(size=128).astype(np.float32))
    calm = st.BatchSelector("obtf", rate=0.1, seed=0)(losses)
    plain = st.BatchSelector("obtf", rate=0.1, seed=0, policy_options={"choices": 1})(losses)
    named = st.BatchSelector("obtf", rate=0.1, seed=0, options={"choices": 8})(losses)
    assert calm.solution.status is plain.solution.status is so.Status.OPTIMAL
    assert torch.equal(calm.indices, named.indices)
    assert float((losses[calm.indices] ** 2).sum()) <= float((losses[plain.indices] ** 2).sum())
