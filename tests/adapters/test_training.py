"""The experiment behind ``subsetopt train``: data, runs and reports."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import subsetopt as so

torch = pytest.importorskip("torch")

from subsetopt_torch.experiment.comparison import (  # noqa: E402
    Experiment,
    Run,
    Settings,
    make_model,
    run_one,
    torch_threads,
)
from subsetopt_torch.experiment.data import DataSet, load_data, read_idx  # noqa: E402
from subsetopt_torch.experiment.pictures import write_accuracy  # noqa: E402
from subsetopt_torch.experiment.report import table, write_json  # noqa: E402

SMALL = {"seeds": 2, "epochs": 2, "batch_size": 32}


def small_data(n: int = 200) -> DataSet:
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.random((n, 8)), dtype=torch.float32)
    y = (x[:, 0] > 0.5).long() + 2 * (x[:, 1] > 0.5).long()
    return DataSet("small", x[:-40], y[:-40], x[-40:], y[-40:], 4)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    compared = Experiment(Settings(("obtf", "big-loss"), rate=0.25, **SMALL), small_data())
    started: list[tuple[str, int]] = []
    steps: list[int] = []

    def on_run(method: str, seed: int):  # type: ignore[no-untyped-def]
        started.append((method, seed))
        return lambda run: steps.append(run.steps)

    compared.execute(on_run)
    methods = ["full batch", "uniform", "obtf", "big-loss"]
    assert started == [(m, s) for s in range(2) for m in methods]
    assert len(steps) == 8 * compared.steps_per_run
    return compared


def test_every_method_makes_the_same_steps_from_the_same_start(experiment: Experiment) -> None:
    assert experiment.steps_per_run == 10
    for seed in range(2):
        runs = {run.method: run for run in experiment.runs if run.seed == seed}
        assert {run.steps for run in runs.values()} == {10}
        assert len({run.curve[0].accuracy for run in runs.values()}) == 1
        assert runs["full batch"].backpropagated == 320
        assert {runs[m].backpropagated for m in ("uniform", "obtf", "big-loss")} == {80}
        assert runs["uniform"].scored == runs["full batch"].scored == 0
        assert runs["obtf"].scored == runs["big-loss"].scored == 320
        assert [point.epoch for point in runs["obtf"].curve] == [0, 1, 2]


def test_residuals_and_seconds(experiment: Experiment) -> None:
    full, uniform, obtf, big = experiment.runs[:4]
    assert full.residuals == [] and len(uniform.residuals) == 1 and len(obtf.residuals) == 10
    assert np.median(obtf.residuals) < 1e-3 < np.median(big.residuals)
    assert set(obtf.seconds) == {"scoring", "selection", "training", "update"}
    assert min(obtf.seconds.values()) > 0.0 and uniform.seconds["scoring"] == 0.0


def test_a_run_can_be_repeated(experiment: Experiment) -> None:
    again = run_one(experiment.settings, experiment.data, "obtf", 0)
    (first,) = (r for r in experiment.runs if (r.method, r.seed) == ("obtf", 0))
    # Point 0 has nan for the loss of a batch that was not yet seen.
    assert again.curve[1:] == first.curve[1:] and again.residuals == first.residuals


def test_the_start_is_that_of_the_seed_and_leaves_the_random_stream() -> None:
    before = torch.get_rng_state()
    one, two, other = (make_model(8, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert [m.out_features for m in one if hasattr(m, "out_features")] == [256, 256, 4]


def test_table(experiment: Experiment) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: PTH123
    console.print(table(experiment))
    console.file.close()
    text = console.export_text()
    for part in ("full batch", "uniform", "obtf", "big-loss", "accuracy", "small: rate 0.25"):
        assert part in text


def test_the_table_fits_80_columns_and_keeps_exponents() -> None:
    from rich.console import Console

    settings = Settings(policies=("selective-backprop", "gradient-matching"), **SMALL)
    runs = [
        Run(method, 0, residuals=[1.25e-12, 3.75e-300], backpropagated=1_234_567)
        for method in settings.methods
    ]
    for run in runs:
        run.seconds = dict.fromkeys(("scoring", "selection", "training", "update"), 123.456)
        run.end_epoch(0, 1.0, [])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(Experiment(settings, small_data(), runs)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for part in ("selective-backprop", "100.00", "1,234,567", "123.46", "246.91", "6.2e-13"):
        assert text.count(part) >= 1, part
    assert text.count("1.2e-12") == 4


def test_files_are_written_as_runs_end(tmp_path: Path) -> None:
    experiment = Experiment(Settings(policies=("big-loss",), **SMALL), small_data())
    counts = []

    def on_end() -> None:
        write_json(experiment, tmp_path / "results.json")
        counts.append(len(json.loads((tmp_path / "results.json").read_text())["runs"]))

    experiment.execute(lambda method, seed: lambda run: None, on_end)
    assert counts == [1, 2, 3, 4, 5, 6]


def test_files(experiment: Experiment, tmp_path: Path) -> None:
    write_json(experiment, tmp_path / "results.json")
    write_accuracy(experiment, tmp_path / "accuracy.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["accuracy.png", "results.json"]
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["settings"]["rate"] == 0.25 and content["data"]["train"] == 160
    assert content["machine"]["subsetopt"] == so.__version__
    run = content["runs"][2]
    assert (run["method"], run["steps"], len(run["curve"])) == ("obtf", 10, 3)
    assert run["curve"][0]["batch_loss"] is None
    assert run["residual"]["worst"] >= run["residual"]["median"]
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_is_whole_or_not_there(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("old")
    broken = Experiment(experiment.settings, experiment.data, [Run("obtf", {1, 2})])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(broken, tmp_path / "results.json")
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "old"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"rate": 0.0}, r"rate must be in \(0, 1\], got 0.0"),
        ({"rate": 1.1}, r"rate must be in \(0, 1\], got 1.1"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed must be at least 0, got -1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": float("nan")}, "lr must be a positive number"),
        ({"policies": ("obft",)}, "no policy named 'obft'"),
        ({"time_limit": -1.0}, "time_limit must be at least 0"),
    ],
)
def test_settings_are_looked_at_first(keywords: dict, message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        Settings(**keywords)


def test_settings_name_each_method_once() -> None:
    assert Settings(("uniform", "obtf", "obtf")).methods == ("full batch", "uniform", "obtf")
    with pytest.raises(so.SolverNotFoundError, match="no solver named 'swop'"):
        Settings(solver="swop")


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(so.OptionError, match="threads must be at least 1"), torch_threads(0):
        pass


# Data


def test_digits() -> None:
    pytest.importorskip("sklearn")
    data = load_data("digits")
    assert (len(data.train_x), len(data.test_x), data.classes) == (1437, 360, 10)
    assert data.train_x.dtype == torch.float32 and data.train_y.dtype == torch.int64
    assert 0.0 <= float(data.train_x.min()) and float(data.train_x.max()) == 1.0
    assert torch.equal(load_data("digits").test_x, data.test_x)


def idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_idx_files(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, n in (("train", 6), ("t10k", 3)):
        idx(folder / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28)))
        idx(folder / f"{name}-labels-idx1-ubyte.gz", np.arange(n))
    data = load_data("mnist", tmp_path)
    assert data.train_x.shape == (6, 784) and data.test_y.tolist() == [0, 1, 2]
    assert float(data.train_x.max()) <= 1.0


def test_damaged_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    idx(path, np.zeros((2, 3)), kind=9)
    with pytest.raises(so.ProblemError, match="not a gzipped IDX file of bytes: not unsigned"):
        read_idx(path)
    path.write_bytes(b"plain")
    with pytest.raises(so.ProblemError, match="not a gzipped IDX"):
        read_idx(path)
    idx(path, np.zeros((20, 30)))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(so.ProblemError, match="not a gzipped IDX"):
        read_idx(path)
    with gzip.open(path, "wb") as file:
        file.write(b"\0")
    with pytest.raises(so.ProblemError, match="not a gzipped IDX"):
        read_idx(path)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((2**32 - 1, 2**32 - 1), 10, "its header promises 18,446,744,065,119,617,025 bytes"),
        ((100,), 99, "it holds less than its header says"),
        ((100,), 101, "it holds more than its header says"),
        ((1,) * 255, 1, "dim"),
    ],
)
def test_a_header_is_believed_as_far_as_the_data_goes(tmp_path, shape, size, message) -> None:
    with gzip.open(tmp_path / "file.gz", "wb") as file:
        file.write(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(size))
    with pytest.raises(so.ProblemError, match=f"not a gzipped IDX file of bytes: .*{message}"):
        read_idx(tmp_path / "file.gz")


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, 10))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(so.ProblemError, match="more than its header says"):
        read_idx(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 << 20


def test_every_broken_byte_of_a_gzipped_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    idx(path, np.arange(40).reshape(5, 8))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            array = read_idx(path)
        except so.ProblemError as error:
            assert "not a gzipped IDX file" in str(error)
        else:
            # Names and times in the header of gzip are no part of the data.
            assert np.array_equal(array, np.arange(40).reshape(5, 8))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1", np.arange(5), r"train-labels.* does not belong to .*6 images"),
        ("train-labels-idx1", np.zeros((6, 1)), r"its shape is \(6, 1\)"),
        ("train-labels-idx1", np.arange(6) + 5, "has class 10; classes are 0 to 9"),
        ("t10k-images-idx3", np.zeros((3, 14, 14)), "784 pixels per image, .* 196"),
        ("t10k-images-idx3", np.zeros((3, 784)), "holds no images"),
        ("train-images-idx3", np.zeros((0, 28, 28)), "holds no images"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, name, array, message) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 6), ("t10k", 3)):
        idx(folder / f"{part}-images-idx3-ubyte.gz", np.zeros((n, 28, 28)))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n))
    idx(folder / f"{name}-ubyte.gz", array)
    with pytest.raises(so.ProblemError, match=message):
        load_data("mnist", tmp_path)


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBSETOPT_DATA", raising=False)
    with pytest.raises(so.OptionError, match=r"needs a data folder\. .*published at https://"):
        load_data("mnist")
    monkeypatch.setenv("SUBSETOPT_DATA", str(tmp_path))
    with pytest.raises(so.OptionError, match=r"mnist lacks train-images.*published at https://"):
        load_data("mnist")
    with pytest.raises(so.OptionError, match=r"no data set named 'mnits'\. Did you mean 'mnist'"):
        load_data("mnits")


@pytest.mark.data
@pytest.mark.skipif("SUBSETOPT_DATA" not in os.environ, reason="SUBSETOPT_DATA is not set")
def test_mnist_as_published() -> None:
    data = load_data("mnist")
    assert (len(data.train_x), len(data.test_x)) == (60_000, 10_000)
    assert torch.bincount(data.train_y).tolist()[:3] == [5923, 6742, 5958]
