"""`sightline record --view` leaves a trace that has all that the viewer shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline import BlockMass, BlockMax, Trace
from sightline.cli._run import run
from sightline.tasks import observations
from sightline.viewer.desk import At, Desk
from sightline.viewer.survey import Survey
from sightline.viewer.tiles import recorded_maps
from tiny_model import DOCUMENT, save_tiny


@pytest.mark.parametrize(("n", "side"), [(10, 16), (8_192, 16), (8_193, 32), (16_385, 64), (131_072, 256)])
def test_maps_for_the_viewer_have_blocks_of_a_power_of_two(n: int, side: int) -> None:
    assert observations("view", n) == {"view-mass": BlockMass(side, side), "view-max": BlockMax(side, side)}


def test_a_trace_for_the_viewer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ferry.md").write_text(DOCUMENT)
    target = tmp_path / "run.safetensors"
    model = save_tiny(tmp_path / "tiny")
    assert run(["record", str(model), str(tmp_path / "ferry.md"), "-o", str(target), "--view"]) == 0
    assert f"sightline view {target}" in capfd.readouterr().out
    trace = Trace.load(target)
    assert list(trace.reductions) == ["entropy", "peak", "top8", "received", "map", "view-mass", "view-max"]
    record = next(iter(trace.values()))[0]
    maps = recorded_maps(trace, record, 0, 0)
    assert maps is not None
    assert maps.block == 16
    desk = Desk([str(target)])
    assert desk.tile(At(0, 0, 0), 0, 0, 0).complete
    assert desk.tracks(At(0, 0, 0)) is not None
    assert desk.thumbnails(0, 0) is not None
    assert not Survey(*record.shape[2:]).complete  # of which nothing was needed
