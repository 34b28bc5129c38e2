"""A sampler's own copy of the records of its data set."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subsetopt import LedgerError
from subsetopt.ledger.records import Records
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt_torch.loading.ranks import gathered
from subsetopt_torch.loading.saved_tensors import checked_tensor
from subsetopt_torch.recorded.settings import RecordedScores

__all__ = ["RecordCopy"]

# One record of the copy: 24 bytes.
_FIELDS = ("losses", "scores", "steps", "versions")
_DTYPES = {
    "losses": torch.float32,
    "scores": torch.float32,
    "steps": torch.int64,
    "versions": torch.int64,
}
# A record that processes send to each other.
_SENT = np.dtype(
    [
        ("position", np.int64),
        ("losses", np.float32),
        ("scores", np.float32),
        ("steps", np.int64),
        ("versions", np.int64),
    ]
)
# The step of samples without a record.
_NONE = -1
# The largest step of a first selection, which leaves room for those after it in 64 bits.
_LAST_FIRST = 2**62
# The number of records that are looked up at once.
_CHUNK = 1 << 16

Columns = dict[str, NDArray[Any]]


class RecordCopy:
    """What is recorded of the n samples of a data set, 24 bytes of memory for each.

    It is read from a ledger once, and every change is written to that ledger, too. What the
    samples of an epoch are chosen by is this copy, which is part of a saved state: records that
    somebody else writes meanwhile do not change a resumed run.

    Parameters
    ----------
    settings
        The ledger and the rules.
    scored
        Whether records need a score besides the loss.
    ids
        The id of every sample in the ledger, shape (n,), int64 or objects.

    Attributes
    ----------
    columns
        The records: arrays ``losses``, ``scores``, ``steps`` and ``versions``, shape (n,).
    first_step
        The step that is recorded for the first selection: one after the latest one in the ledger,
        or 0. A run on the ledger of an earlier one so goes on counting.
    """

    def __init__(self, settings: RecordedScores, scored: bool, ids: NDArray[Any]) -> None:
        self.settings = settings
        self._scored = scored
        self._ids = ids
        n = ids.size
        self.columns: Columns = {
            "losses": np.full(n, np.nan, dtype=np.float32),
            "scores": np.full(n, np.nan, dtype=np.float32),
            "steps": np.full(n, _NONE, dtype=np.int64),
            "versions": np.full(n, _NONE, dtype=np.int64),
        }
        self._warned = False
        self._changed = np.zeros(n, dtype=np.bool_)  # which changed since the epoch began
        self._read()
        self.first_step = min(int(self.columns["steps"].max(initial=_NONE)) + 1, _LAST_FIRST)
        self._restart()

    def now(self, selection: int) -> int:
        """Return the step to record for a selection, which ages count from."""
        clock = self.settings.clock
        return self.first_step + selection if clock is None else int(clock())

    def recorded(self) -> NDArray[np.int64]:
        """Return the positions of the samples that have a record."""
        return np.flatnonzero(self.columns["steps"] > _NONE)

    def usable(self, now: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return which records can be chosen by: not missing, not too old, not to be refreshed.

        Parameters
        ----------
        now
            The step that ages count from.
        rows
            The positions to look at; None stands for all.
        """
        settings = self.settings
        usable: NDArray[np.bool_] = np.isfinite(self._column("losses", rows))
        if self._scored:
            usable &= np.isfinite(self._column("scores", rows))
        if settings.max_age is not None:
            usable &= now - self._column("steps", rows) <= settings.max_age
        if settings.max_versions is not None:
            behind = settings.model_version - self._column("versions", rows)
            usable &= behind <= settings.max_versions
        count = int(settings.refresh * usable.size + 0.5)
        if count:
            steps = np.where(usable, self._column("steps", rows), np.iinfo(np.int64).max)
            usable[np.argsort(steps, kind="stable")[:count]] = False
        return usable

    def update(
        self,
        positions: NDArray[np.int64],
        losses: NDArray[np.float32],
        scores: NDArray[np.float32] | None,
        step: int,
    ) -> None:
        """Record the losses of samples, and write them to the ledger unless it is read-only.

        A record in the ledger of a later step stays what it is there. If the ledger fails there is
        one warning, and the copy goes on without it.
        """
        self._put(
            positions,
            {
                "losses": losses,
                "scores": np.float32(np.nan) if scores is None else scores,
                "steps": step,
                "versions": self.settings.model_version,
            },
        )
        ledger = self.settings.ledger
        if ledger.readonly:
            return
        version = self.settings.model_version
        try:
            ledger.record(self._ids[positions], losses, scores, step=step, model_version=version)
        except LedgerError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{error} Training goes on, and what it learns is not in the ledger.",
                    UserWarning,
                    stacklevel=4,
                )

    def begin(self, *, reread: bool) -> NDArray[np.int64]:
        """Begin an epoch: take up what other processes of this run have recorded.

        Parameters
        ----------
        reread
            Whether to take up later records of the ledger, too, which others have written.

        Returns
        -------
        NDArray[np.int64]
            The positions of the records that were taken up.
        """
        parts = gathered(self._to_send())
        alone = len(parts) == 1
        before = None if alone and not reread else self.columns["steps"].copy()
        for part in () if alone else parts:
            self._take_up(part["position"], {name: part[name] for name in _FIELDS})
        if reread:
            self._read()
        self._restart()
        if before is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.columns["steps"] != before)

    def state(self) -> dict[str, Any]:
        """Return the records as tensors.

        Those of when the epoch began share memory with the copy, which never writes to them; what
        changed since is apart, so that a state costs little within an epoch.
        """
        changed = np.flatnonzero(self._changed)
        return {
            "first_step": self.first_step,
            "base": _tensors(self._base),
            "changed": torch.from_numpy(changed),
            "now": _tensors({name: self.columns[name][changed] for name in _FIELDS}),
        }

    def checked(self, state: object) -> tuple[int, Columns, NDArray[np.int64], Columns]:
        """Return what :meth:`load` takes from a state.

        Raises
        ------
        OptionError
            If the state is malformed, or of a data set of another size.
        """
        names = ("first_step", "base", "changed", "now")
        saved = SavedState("the records of a sampler", state, names)
        n = self._changed.size
        changed = checked_tensor(saved, "changed", torch.int64)
        if changed.size and not (
            changed.min() >= 0 and changed.max() < n and (np.diff(changed) > 0).all()
        ):
            raise saved.error("changed", f"ascending positions from 0 to {n - 1}", changed)
        base, now = _checked_columns(saved["base"], n), _checked_columns(saved["now"], changed.size)
        return saved.integer("first_step", 0, _LAST_FIRST), base, changed, now

    def load(
        self, first_step: int, base: Columns, changed: NDArray[np.int64], now: Columns
    ) -> None:
        """Take up a state that was checked."""
        self.first_step, self._base = first_step, base
        self.columns = _copied(base)
        self._changed = np.zeros_like(self._changed)
        self._put(changed, now)

    def _restart(self) -> None:
        """Take the present records for those of when the epoch began."""
        self._base = _copied(self.columns)  # never written to
        self._changed = np.zeros_like(self._changed)

    def _column(self, name: str, rows: NDArray[np.int64] | None) -> NDArray[Any]:
        column = self.columns[name]
        return column if rows is None else column[rows]

    def _put(self, positions: NDArray[np.int64], values: dict[str, Any]) -> None:
        for name in _FIELDS:
            self.columns[name][positions] = values[name]
        self._changed[positions] = True

    def _take_up(self, positions: NDArray[np.int64], values: Columns) -> None:
        """Replace records by others that are not of an earlier step."""
        later = values["steps"] >= self.columns["steps"][positions]
        self._put(positions[later], {name: values[name][later] for name in _FIELDS})

    def _read(self) -> None:
        """Take up the records of the ledger that are later than those of the copy."""
        for positions, found in self._lookups():
            later = found.found & (found.steps > self.columns["steps"][positions])
            rows = np.flatnonzero(later)
            self._put(
                positions[rows],
                {
                    "losses": found.losses[rows],
                    "scores": found.scores[rows],
                    "steps": found.steps[rows],
                    "versions": found.model_versions[rows],
                },
            )

    def _lookups(self) -> Iterator[tuple[NDArray[np.int64], Records]]:
        for start in range(0, self._ids.size, _CHUNK):
            ids = self._ids[start : start + _CHUNK]
            yield np.arange(start, start + ids.size), self.settings.ledger.lookup(ids)

    def _to_send(self) -> NDArray[Any]:
        changed = np.flatnonzero(self._changed)
        rows = np.empty(changed.size, dtype=_SENT)
        rows["position"] = changed
        for name in _FIELDS:
            rows[name] = self.columns[name][changed]
        return rows


def _copied(columns: Columns) -> Columns:
    return {name: column.copy() for name, column in columns.items()}


def _tensors(columns: Columns) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(columns[name]) for name in _FIELDS}


def _checked_columns(state: object, size: int) -> Columns:
    saved = SavedState("the records of a sampler", state, _FIELDS)
    columns = {name: checked_tensor(saved, name, _DTYPES[name], size) for name in _FIELDS}
    for name in ("steps", "versions"):
        if (columns[name] < _NONE).any():
            raise saved.error(f"every entry of {name}", "at least -1", int(columns[name].min()))
    return columns
