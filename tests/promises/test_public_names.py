"""Promise: the public names are those that are listed, each says what it is, and calls take what they took."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types

import pytest

import sightline as sl

PUBLIC = [name for name in sl.__all__ if name != "__version__"]

OPTIONS = "*, mask=None, bias=None, scale=None, softcap=None, sinks=None, backend='auto'"
SIGNATURES = {
    "attention": f"q, k, v, {OPTIONS}",
    "observe": f"q, k, v, reductions, {OPTIONS}",
    "AttentionMatrix": f"q, k, {OPTIONS}",
    "relevance": "matrix, v, grad_out, reductions, *, part='signed'",
    "rollout": "matrices, target",
    "merge": "a, b",
    "backends": "",
    "Entropy": "",
    "LogSumExp": "",
    "Peak": "",
    "TopK": "k",
    "Entries": "keys",
    "RowMoment": "f",
    "SegmentMass": "ids, segments",
    "Rows": "i",
    "Received": "weights=None",
    "ColumnMax": "",
    "ColumnMoment": "w",
    "BlockMass": "rows, cols",
    "BlockMax": "rows, cols",
    "Causal": "",
    "Window": "left=None, right=None",
    "Lengths": "q=None, k=None",
    "Packed": "cu_q, cu_k=None",
    "Prefix": "length",
    "Intervals": "lo, hi",
    "DenseMask": "allowed",
    "Alibi": "slopes",
    "RelativeBias": "table, bidirectional=True, max_distance=128",
    "DenseBias": "values",
}


def signature(of: object) -> str:
    """Parameters and defaults, without annotations."""
    bare = inspect.signature(of)  # type: ignore[arg-type]
    shown = [p.replace(annotation=inspect.Parameter.empty) for p in bare.parameters.values()]
    return str(bare.replace(parameters=shown, return_annotation=inspect.Signature.empty))[1:-1]


def test_everything_public_is_listed_and_everything_listed_is_there() -> None:
    assert len(sl.__all__) == len(set(sl.__all__))
    assert set(sl.__all__) <= set(dir(sl))
    found = {name: getattr(sl, name) for name in sl.__all__}
    assert not [name for name, value in found.items() if isinstance(value, types.ModuleType)]
    public = {
        name
        for name, value in vars(sl).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name != "TYPE_CHECKING"
        and name != "Any"
    }
    assert public == set(sl.__all__) - {"__version__"}


def test_type_checkers_are_told_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(sl))
    (told,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names = {alias.name: node.module for node in told.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == sl._HOME


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        sl.no_such_name  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert sl.__version__ == version("sightline")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(sl, name)
    doc = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    assert doc
    if dataclasses.is_dataclass(value):  # a dataclass without a docstring is given its signature for one
        assert not doc.startswith(f"{name}(")
    assert doc.strip().splitlines()[0].rstrip().endswith((".", ":", "]", "…", ",")) or len(doc.splitlines()[0]) > 60


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_says_what_it_does(name: str) -> None:
    value = getattr(sl, name)
    if not inspect.isclass(value):
        return
    silent = [
        key
        for key, member in vars(value).items()
        if not key.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | staticmethod | classmethod))
        and not inspect.getdoc(getattr(value, key))
    ]
    assert silent == []


@pytest.mark.parametrize("name", SIGNATURES)
def test_public_calls_take_what_they_promise(name: str) -> None:
    assert signature(getattr(sl, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_says_it_comes_from_sightline(name: str) -> None:
    assert getattr(sl, name).__module__.split(".")[0] == "sightline"


def test_every_error_raised_on_purpose_is_one_family() -> None:
    errors = {name: getattr(sl, name) for name in PUBLIC if isinstance(getattr(sl, name), type)}
    errors = {name: kind for name, kind in errors.items() if issubclass(kind, Exception)}
    assert set(errors) == {
        "InputError", "ModelError", "ShapeError", "SightlineError", "SpecError", "TraceError", "Unsupported",
    }  # fmt: skip
    assert all(issubclass(kind, sl.SightlineError) for kind in errors.values())
    assert issubclass(sl.ShapeError, ValueError)
    assert issubclass(sl.SpecError, ValueError)
    assert issubclass(sl.Unsupported, NotImplementedError)


def test_every_backend_says_whether_it_runs_here_and_why_not() -> None:
    known = sl.backends()
    assert [info.name for info in known if info.available][-1] == "dense"
    assert {"tiled", "dense"} <= {info.name for info in known}
    for info in known:
        assert info.available or info.reasons
