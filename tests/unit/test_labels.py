"""Keys of quotas mean the labels they equal; one that equals none is never the free group."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import subsetopt as so

WHICH = np.arange(30) % 3
LOSSES = np.random.default_rng(0).exponential(size=30)
DAYS = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[ns]")[WHICH]
SPANS = np.array([1, 2, 3], dtype="m8[h]")[WHICH]
NAN = float("nan")


def chosen_of_first(groups: object, key: object, quota: object) -> int:
    """Return how many candidates with the first label are chosen."""
    problem = so.Problem(so.MeanMatching(LOSSES), 9, groups=groups, quotas={key: quota})
    answer = so.solve(problem, seed=0)
    assert so.verify(problem, answer)
    return int((WHICH[answer.indices] == 0).sum())


def objects(*labels: object) -> np.ndarray:
    column = np.empty(30, dtype=object)
    column[:] = [labels[i] for i in WHICH]
    return column


EQUAL = [
    (np.array([NAN, 1.0, 2.0])[WHICH], NAN),
    (np.array([NAN, 1.0, 2.0])[WHICH], np.float32("nan")),
    (np.array([NAN, 1.0, 2.0])[WHICH], None),
    (objects(None, "a", "b"), None),
    (objects(NAN, "a", "b"), None),
    (objects(None, 1, 2), NAN),
    (
        np.array(["NaT", "2020-01-02", "2020-01-03"], dtype="M8[D]")[WHICH],
        np.datetime64("NaT", "D"),
    ),
    (DAYS, DAYS[0]),
    (DAYS, np.datetime64("2020-01-01")),
    (DAYS, datetime.datetime(2020, 1, 1)),
    (DAYS, datetime.date(2020, 1, 1)),
    (
        DAYS,
        datetime.datetime(2020, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    ),
    (
        objects(datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), "x"),
        np.datetime64("2020-01-01"),
    ),
    (SPANS, SPANS[0]),
    (SPANS, datetime.timedelta(hours=1)),
    (["a", 1, 2] * 10, "a"),
    ([1, "a", 2] * 10, 1),
    ([1, "1", 2] * 10, 1),
    ([b"a", "a", 2] * 10, b"a"),
    ([None, "a", "None"] * 10, None),
    ([2**60 + 1, 2**60, 0.5] * 10, 2**60 + 1),
    (WHICH, 0.0),
    (WHICH, np.int8(0)),
    (WHICH, np.uint64(0)),
    (WHICH, False),
    (WHICH, Decimal(0)),
    (WHICH == 0, True),
    (WHICH == 0, np.True_),
    ((0.1 * (WHICH + 1)).astype(np.float32), np.float32(0.1)),
    ((0.1 * (WHICH + 1)).astype(np.float32), 0.1),
    (np.array(["cat", "dog", "cow"])[WHICH], "cat"),
    (np.array(["cat", "dog", "cow"])[WHICH], np.str_("cat")),
    (np.array([b"cat", b"dog", b"cow"])[WHICH], b"cat"),
    (np.array([b"cat", b"dog", b"cow"])[WHICH], np.bytes_(b"cat")),
    (objects("cat", "dog", "cow"), "cat"),
    (objects((0, 1), (0, 2), (1, 2)), (0, 1)),
]


@pytest.mark.parametrize(("groups", "key"), EQUAL, ids=[repr(key) for _, key in EQUAL])
def test_a_key_means_the_labels_that_it_equals(groups: object, key: object) -> None:
    assert chosen_of_first(groups, key, (0, 1)) <= 1
    assert chosen_of_first(groups, key, 7) == 7


CASES = [
    (WHICH.astype(str), 0, "quotas name 0, of type int, .* Did you mean '0'"),
    (WHICH, "0", "quotas name '0', of type str, .* Did you mean 0?"),
    (objects("0", "1", "2"), 0, "Did you mean '0'"),
    (np.array([b"cat", b"dog"])[WHICH % 2], "cat", "Did you mean b'cat'"),
    (np.array(["cat", "dog"])[WHICH % 2], b"cat", "Did you mean 'cat'"),
    (DAYS, "2020-01-01", "labels such as .*2020-01-01"),
    (DAYS, 5, "labels such as"),
    (WHICH, np.datetime64("2020-01-01"), "labels such as 0, 1, 2"),
    (WHICH, SPANS[0], "labels such as 0, 1, 2"),
    (["a", 1, 2] * 10, "1", "Did you mean 1?"),
    (
        np.array(["cat", "dog", "cow"])[WHICH],
        "Cat",
        "'Cat', which no label equals. Did you mean 'cat'",
    ),
    (objects("cat", "dog", "cow"), " cat", "Did you mean 'cat'"),
    (np.array(["cat", "dog", "cow"])[WHICH], "cats", "Did you mean 'cat'"),
]


@pytest.mark.parametrize("quota", [(0, 1), 3, (0, 30)])
@pytest.mark.parametrize(("groups", "key", "message"), CASES)
def test_a_key_that_no_label_can_equal_is_refused(
    groups: object, key: object, message: str, quota: object
) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.Problem(so.MeanMatching(LOSSES), 9, groups=groups, quotas={key: quota})


@pytest.mark.parametrize("key", [7, 0.5, None, NAN])
def test_an_absent_label_has_no_candidates(key: object) -> None:
    above = so.Problem(so.MeanMatching(LOSSES), 9, groups=WHICH, quotas={key: (0, 1)})
    assert so.solve(above, seed=0).has_solution
    below = so.Problem(so.MeanMatching(LOSSES), 9, groups=WHICH, quotas={key: (1, 2)})
    answer = so.solve(below, seed=0)
    assert answer.status is so.Status.INFEASIBLE
    assert answer.extras["why"] == (
        f"group {key!r} has 0 candidates that may be chosen, its quota asks for 1"
    )


def test_like_labels_that_all_have_quotas_are_no_misspellings() -> None:
    groups = np.array(["web-en", "web-de", "wiki"])[WHICH]
    quotas = {"web-en": (0, 9), "web-de": (0, 9), "web-da": (0, 9)}
    assert so.select(LOSSES, k=9, groups=groups, quotas=quotas, seed=0).has_solution
    with pytest.raises(so.ProblemError, match="give 'web-de' a quota, too, such as"):
        so.select(LOSSES, k=9, groups=groups, quotas={"web-en": (0, 9), "web-da": (0, 9)})


def test_two_keys_of_one_label_are_refused() -> None:
    keys = {datetime.datetime(2020, 1, 1): 1, np.datetime64("2020-01-01"): 2}
    with pytest.raises(so.ProblemError, match="name one label twice"):
        so.Problem(so.MeanMatching(LOSSES), 9, groups=DAYS, quotas=keys)
    with pytest.raises(so.ProblemError, match="name one label twice, as None and as nan"):
        so.Problem(so.MeanMatching(LOSSES), 9, groups=objects(None, 1, 2), quotas={None: 1, NAN: 2})


def test_pandas_labels_are_labels() -> None:
    pd = pytest.importorskip("pandas")
    days = pd.Series(DAYS)
    for key in (days.iloc[0], days.to_numpy()[0], datetime.date(2020, 1, 1)):
        assert chosen_of_first(days, key, (0, 1)) <= 1
    for labels in (["cat", "dog", "cow"], [1, 2, 3], [None, "a", "b"], [pd.NA, 1, 2]):
        for dtype in ("category", "object"):
            column = pd.Series([labels[i] for i in WHICH], dtype=dtype)
            assert chosen_of_first(column, labels[0], 7) == 7
    numbers = pd.Series([pd.NA, 1, 2] * 10, dtype="Int64")
    assert chosen_of_first(numbers, pd.NA, (0, 1)) <= 1
    assert chosen_of_first(pd.Series(["a", "b", "c"] * 10, dtype="string"), "a", (0, 1)) <= 1


def test_rows_of_a_table_are_no_labels() -> None:
    table = np.zeros(30, dtype=[("a", int), ("b", int)])
    with pytest.raises(so.ProblemError, match=r"groups has dtype .* number the rows"):
        so.Problem(so.MeanMatching(LOSSES), 9, groups=table, quotas={(0, 0): 1})


def test_a_quota_beyond_all_integers_is_no_limit() -> None:
    assert so.select(LOSSES, k=9, groups=WHICH, quotas={0: (0, 10**30)}, seed=0).has_solution
    answer = so.select(LOSSES, k=9, groups=WHICH, quotas={0: 10**30}, seed=0)
    assert answer.status is so.Status.INFEASIBLE


label = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b", "1", ""]),
    st.sampled_from([b"a", b"1"]), st.floats(allow_infinity=False, width=16),
    st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 1, 3)),
)  # fmt: skip


@given(labels=st.lists(label, min_size=1, max_size=12), data=st.data())
def test_every_label_of_a_list_is_a_key_to_its_candidates(
    labels: list[object], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(labels))
    missing = key is None or key != key
    mine = [x is None or x != x if missing else type(x) is type(key) and x == key for x in labels]
    numbers = (int, float, bool)
    if isinstance(key, numbers) and not missing:
        mine = [isinstance(x, numbers) and x == key for x in labels]
    k = data.draw(st.integers(0, len(labels)))
    problem = so.Problem(so.TopScores(np.ones(len(labels))), k, groups=labels, quotas={key: (0, 1)})
    quotas = problem.constraints.quotas
    assert quotas is not None
    assert (quotas.codes == 0).tolist() == mine
