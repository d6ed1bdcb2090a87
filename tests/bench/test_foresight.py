"""Who is left out, and that the memory foreseen is the memory taken."""

from __future__ import annotations

import sys

import pytest

from sightline.bench.case import Case
from sightline.bench.contenders import CONTENDERS
from sightline.bench.figures import Point
from sightline.bench.foresight import left_out
from sightline.bench.process import Fresh

GB = 10**9


def test_a_matrix_that_would_not_fit_is_left_out_with_what_it_would_need() -> None:
    point = left_out(Case(65_536), "eager", 24 * GB, None, 15)
    assert point is not None
    assert (point.state, point.why) == ("left out", "would need 34.4 GB, and 24.0 GB are available")
    assert left_out(Case(32_768), "eager", 24 * GB, None, 15) is None
    assert left_out(Case(65_536), "observing", 24 * GB, None, 15) is None
    assert left_out(Case(65_536), "eager", None, None, 15) is None


def test_a_call_that_would_take_too_long_is_left_out() -> None:
    before = Point(1024, "sdpa", "measured", wall=[2.0], cpu=[4.0], calls=1, bytes=0)
    point = left_out(Case(4096), "sdpa", None, before, 15)
    assert point is not None
    assert (point.why, point.takes) == ("would take about 32.0 s a call, and the limit is 15.0 s", 32)
    assert left_out(Case(2048), "sdpa", None, before, 15) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is restarted through /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matrix_takes_what_is_foreseen_and_the_others_far_less(dtype: str) -> None:
    case, grown = Case(2048, dtype=dtype), {}
    for name in CONTENDERS:
        with Fresh(case, name, 1, patience=60) as process:
            process.ready()
            first = process.first()
        assert first.fault == ""
        grown[name] = first.bytes
    foreseen = CONTENDERS["eager"].stores(case)
    assert grown["eager"] == pytest.approx(foreseen, rel=0.25)
    for name in ("sdpa", "sightline", "observing"):
        assert 0 < grown[name] < foreseen / 4
