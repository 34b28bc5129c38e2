"""What type checkers see of the public names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

# Any is the type of hyperparameters by name, of saved states, and of the samples of a data set.
MAPPINGS = re.compile(r"(Mapping|dict)\[str, Any\]")
SAMPLES = {"WithIds.__getitem__"}


def functions() -> Iterator[tuple[str, Any]]:
    for name in st.__all__:
        public = getattr(st, name)
        if not inspect.isclass(public):
            yield name, public
            continue
        for member, value in vars(public).items():
            function = value.fget if isinstance(value, property) else value
            special = member in ("__init__", "__call__", "__getitem__")
            if inspect.isfunction(function) and (special or not member.startswith("_")):
                yield f"{name}.{member}", function


FUNCTIONS = dict(functions())


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in SAMPLES])
def test_no_public_signature_says_any(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    annotations = [p.annotation for p in signature.parameters.values() if p.name != "self"]
    for annotation in (*annotations, signature.return_annotation):
        assert annotation is not inspect.Parameter.empty, signature
        plain = MAPPINGS.sub("", str(annotation)).replace("NDArray[Any]", "")
        assert not re.search(r"\bAny\b", plain), signature
