"""Which backend serves what: "auto" chooses for each reduction by itself, a named backend never falls back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import sightline as sl
from sightline.backends import ORDER, choose, cpu
from sightline.request import Request


@pytest.fixture
def picky() -> Iterator[list[list[str]]]:
    """A backend that "auto" asks first and that refuses TopK; what it and `tiled` were asked for, in order."""
    tiled, asked = ORDER["tiled"], []

    def spy(name: str) -> SimpleNamespace:
        def forward(request: Request) -> list[torch.Tensor]:
            asked.append([name, *(type(r).__name__ for r in request.reductions)])
            return tiled.forward(request)

        def refusals(request: Request) -> list[str]:
            few = name == "picky" and any(isinstance(r, sl.TopK) for r in request.reductions)
            return ["it finds no largest keys"] if few else []

        return SimpleNamespace(
            NAME=name, READS_RESULTS=False, forward=forward, refusals=refusals, backward=tiled.backward
        )

    everyone = dict(ORDER)
    ORDER.clear()
    ORDER.update({name: spy(name) for name in ("picky", "tiled")})  # type: ignore[misc]
    yield asked
    ORDER.clear()
    ORDER.update(everyone)


def test_a_reduction_that_a_backend_refuses_moves_no_other(picky: list[list[str]]) -> None:
    q = torch.randn(1, 2, 5, 4, requires_grad=True)
    seen = sl.observe(q, q, q, {"top": sl.TopK(2), "spread": sl.Entropy()})
    assert picky == [["picky", "RowMoment", "Entropy"], ["tiled", "TopK"]]
    alone = sl.observe(q, q, q, {})
    assert torch.equal(seen.output, alone.output)
    right = sl.observe(q, q, q, {"top": sl.TopK(2), "spread": sl.Entropy()}, backend="dense")
    assert torch.equal(seen["top"], right["top"])
    torch.testing.assert_close(seen["spread"], right["spread"])
    (seen.output.sum() + seen["spread"].sum()).backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_a_named_backend_that_refuses_does_not_fall_back(picky: list[list[str]]) -> None:
    q = torch.ones(1, 1, 3, 4)
    with pytest.raises(sl.Unsupported, match="no largest keys") as refusal:
        sl.observe(q, q, q, {"top": sl.TopK(2)}, backend="picky")
    assert refusal.value.refusals == {"picky": ["it finds no largest keys"]}
    assert picky == []


def test_without_native_kernels_everything_is_served_by_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.randn(1, 2, 5, 4, requires_grad=True)
    monkeypatch.setattr(cpu, "_native", None)
    (info,) = (info for info in sl.backends() if info.name == "cpu")
    assert not info.available
    assert "install a C++ compiler" in info.reasons[0]
    seen = sl.observe(q, q, q, {"top": sl.TopK(2), "map": sl.BlockMass(2, 2)}, mask=sl.Causal())
    right = sl.observe(q, q, q, {"top": sl.TopK(2), "map": sl.BlockMass(2, 2)}, mask=sl.Causal(), backend="tiled")
    assert torch.equal(seen.output, right.output)
    assert torch.equal(seen["map"], right["map"])
    seen.output.sum().backward()
    with pytest.raises(sl.Unsupported, match="kernels were not built"):
        sl.attention(q, q, q, backend="cpu")


def test_auto_takes_the_native_kernels_for_what_they_serve() -> None:
    if cpu.absent():
        pytest.skip("the native kernels are not built here: `sightline doctor` says why")
    matrix = sl.AttentionMatrix(torch.randn(1, 2, 5, 4), torch.randn(1, 1, 7, 4))
    request = Request(matrix.q, matrix.k, matrix.scores, ())
    assert choose("auto", request) == "cpu"
    assert choose("auto", replace(request, q=request.q.double())) == "tiled"
