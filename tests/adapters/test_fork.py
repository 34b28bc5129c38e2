"""Workers of a DataLoader may solve; the adapter's command line is cheap to import."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from processes import modules_loaded_by

import subsetopt as so

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

LOSSES = np.random.default_rng(3).exponential(size=(4, 64))


class Selected(torch.utils.data.Dataset):
    """Solves where the sample is fetched."""

    def __len__(self) -> int:
        return len(LOSSES)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(so.select(LOSSES[i], k=6, seed=i).require().indices)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform"
)
# Python 3.12 and later warn of any fork while threads run; that is what is tested here.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_may_solve() -> None:
    expected = [so.select(row, k=6, seed=i).indices.tolist() for i, row in enumerate(LOSSES)]
    st.BatchSelector("obtf", k=6, seed=0)(torch.from_numpy(LOSSES[0]))
    torch.randn(200, 200) @ torch.randn(200, 200)  # torch's own threads are running now
    loader = torch.utils.data.DataLoader(
        Selected(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    assert [indices.tolist() for indices in loader] == expected


def test_the_commands_are_listed_without_torch() -> None:
    loaded = modules_loaded_by(
        "import subsetopt_torch.cli, subsetopt_torch as st; assert 'BatchSelector' in dir(st)"
    )
    assert not loaded & {"torch", "numba", "matplotlib", "sklearn"}


def test_every_public_name_is_there() -> None:
    assert all(getattr(st, name) is not None for name in st.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        st.nothing  # noqa: B018
