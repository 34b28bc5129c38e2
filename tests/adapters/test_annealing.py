"""The end of a run takes everything, from the step on that was asked for."""

from __future__ import annotations

import pytest

import subsetopt as so

torch = pytest.importorskip("torch")
from step_parts import batch, make  # noqa: E402

import subsetopt_torch as st  # noqa: E402


@pytest.mark.parametrize(
    ("full_after", "first"), [(0.0, 0), (0.4, 4), (0.85, 9), (0.875, 9), (1.0, 10)]
)
def test_everything_is_taken_from_the_stated_step_on(full_after: float, first: int) -> None:
    step = make(
        policy="balanced",
        selector={"rate": 0.25, "full_after": full_after, "total_steps": 10},
    )
    x, y = batch(16)
    trained = [step(x, y).trained for _ in range(12)]
    assert trained == [4] * first + [16] * (12 - first)


def test_a_whole_batch_weighs_as_in_plain_training() -> None:
    selector = st.BatchSelector("balanced", k=2, seed=0, full_after=0.0, total_steps=5)
    assert selector.size(8) == 8 and selector.size(0) == 0
    assert not selector.everything(8).weights.sub(1 / 8).any()


def test_a_resumed_run_ends_as_it_would_have() -> None:
    options = {"rate": 0.5, "seed": 0, "full_after": 0.5, "total_steps": 4}
    selector = st.BatchSelector("big-loss", **options)
    for _ in range(2):
        selector(torch.rand(6))
    resumed = st.BatchSelector("big-loss", **options)
    resumed.load_state_dict(selector.state_dict())
    assert resumed.size(6) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"full_after": 0.5}, {"total_steps": 10}, {"full_after": 1.5, "total_steps": 10},
        {"full_after": 0.5, "total_steps": 0},
    ],
)  # fmt: skip
def test_half_a_statement_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(so.OptionError, match=r"full_after|total_steps"):
        st.BatchSelector("obtf", rate=0.5, **wrong)  # type: ignore[arg-type]
