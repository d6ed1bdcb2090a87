"""Every tile of every level is the library's matrix, pooled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sightline import Alibi, AttentionMatrix, Causal, Entropy, Received, SpecError, Trace, Window
from sightline.masks import Mask
from sightline.viewer import desk as desks
from sightline.viewer.desk import At, Desk
from sightline.viewer.geometry import SIDE, Place, Pyramid
from sightline.viewer.head import Head, shrunk
from sightline.viewer.survey import Survey, block_of
from sightline.viewer.tiles import Maps, from_maps, surveyed
from viewer import worlds


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=1e-7)


def every(pyramid: Pyramid) -> list[tuple[int, int, int]]:
    tiles = []
    for z in range(pyramid.deepest + 1):
        side = SIDE * pyramid.block(z)
        tiles += [(z, x, y) for y in range(-(-pyramid.n // side)) for x in range(-(-pyramid.m // side))]
    return tiles


@pytest.mark.parametrize("which", ["small", "cross"])
def test_every_tile_is_the_matrix(which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    desk, at = Desk([str(path)]), At(0, 0, 1)
    P = Trace.load(path).matrix(0, 1).dense()[0, 0]
    pyramid = desk.pyramid(at)
    assert every(pyramid), "no tile at all"
    for z, x, y in every(pyramid):
        block, tile = pyramid.block(z), desk.tile(at, z, x, y)
        part = P[y * SIDE * block : (y + 1) * SIDE * block, x * SIDE * block : (x + 1) * SIDE * block]
        close(tile.mass, shrunk(part, block, torch.sum))
        close(tile.largest, shrunk(part, block, torch.amax))
        assert tile.complete


def test_the_tile_of_another_head_is_another(small: Path) -> None:
    desk = Desk([str(small)])
    one, other = desk.tile(At(0, 0, 0), 0, 0, 0), desk.tile(At(0, 0, 1), 0, 0, 0)
    assert not torch.allclose(one.mass, other.mass, rtol=1e-2)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (None, {}),
        (Causal(), {}),
        (Window(40, 0), {}),
        (Causal(), {"softcap": 5.0}),
        (Causal(), {"bias": Alibi(torch.tensor([0.1]))}),
        (Causal(), {"sinks": torch.tensor([2.0])}),
    ],
)
def test_a_window_of_weights_is_that_of_the_matrix(mask: Mask | None, options: dict) -> None:
    q, k = worlds.world(90, heads=1)
    whole = AttentionMatrix(q, k, mask=mask, **options)
    head = Head(AttentionMatrix._of(q, k, whole.scores, "auto", whole.lse()))
    for rows, keys in ((range(90), range(90)), (range(37, 61), range(11, 64)), (range(5), range(80, 90))):
        close(head.weights(rows, keys), whole[0, 0, rows.start : rows.stop, keys.start : keys.stop])
    close(head.row(33), whole[0, 0, 33, :])
    close(head.column(7), whole[0, 0, :, 7])
    mass, largest = head.pooled(Place(8, range(16, 90), range(70)))
    close(mass, shrunk(whole[0, 0, 16:90, 0:70], 8, torch.sum))
    close(largest, shrunk(whole[0, 0, 16:90, 0:70], 8, torch.amax))


def test_a_survey_finds_what_recording_pools_and_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = worlds.world(2_000, heads=1)
    P = AttentionMatrix(q, k, mask=Causal())
    head, survey = Head(AttentionMatrix._of(q, k, P.scores, "auto", P.lse())), Survey(2_000, 2_000)
    survey._height = 320
    dense = P.dense()[0, 0]
    place = Place(64, range(2_000), range(2_000))
    assert surveyed(survey, place).known == 0
    survey.advance(head, 1e-9)
    part = surveyed(survey, place)
    assert (survey.done, part.known, part.complete) == (320, 5, False)
    close(part.mass[:5], shrunk(dense, 64, torch.sum)[:5])
    survey.advance(head, 1e9)
    assert survey.complete
    close(surveyed(survey, place).mass, shrunk(dense, 64, torch.sum))
    close(surveyed(survey, place).largest, shrunk(dense, 64, torch.amax))
    close(survey.received, dense.sum(0))
    close(survey.entropy, -(dense * dense.clamp(min=1e-30).log()).sum(1))


def test_recorded_maps_serve_the_far_out_levels(small: Path) -> None:
    trace = Trace.load(small)
    record = trace["model.layers.1.self_attn"][0]
    maps = Maps(32, record["view-mass"][0, 0], record["view-max"][0, 0])
    P = trace.matrix(1, 0).dense()[0, 0]
    tile = from_maps(maps, Place(128, range(700), range(128, 700)))
    close(tile.mass, shrunk(P[:, 128:], 128, torch.sum))
    close(tile.largest, shrunk(P[:, 128:], 128, torch.amax))


def test_a_long_trace_is_looked_at_through_its_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = worlds.recorded(tmp_path / "t", 4_200, layers=1, heads=1, maps=32)
    monkeypatch.setattr(desks.tiles, "directly", lambda place, pyramid: place.block < 32)
    monkeypatch.setattr(Desk, "survey", lambda *_: pytest.fail("recorded maps were not used"))
    desk = Desk([str(path)])
    P = Trace.load(path).matrix(0, 0)[0, 0, :, :]
    close(desk.tile(At(0, 0, 0), 0, 0, 0).mass, shrunk(P, 32, torch.sum))


def test_tracks_rows_and_columns(small: Path, cross: Path) -> None:
    for path, at in ((small, At(0, 1, 0)), (cross, At(0, 0, 0))):
        desk, P = Desk([str(path)]), Trace.load(path).matrix(at.layer, at.head)
        found = desk.tracks(at)
        assert found is not None
        close(found[0], P.reduce({"received": Received()})["received"][0, 0])
        close(found[1], P.reduce({"entropy": Entropy()})["entropy"][0, 0])
        close(desk.row(at, 17), P[0, 0, 17, :])
        close(desk.column(at, 3), P[0, 0, :, 3])


def test_blocks_of_a_survey_are_few() -> None:
    for n in (100, 8_192, 131_072, 1_000_000):
        pyramid = Pyramid(n, n)
        assert -(-n // block_of(pyramid)) <= 4096
        assert pyramid.block(0) * SIDE >= n


@pytest.mark.parametrize(
    ("at", "tile", "says"),
    [
        (At(1, 0, 0), (0, 0, 0), "trace 1"),
        (At(0, 9, 0), (0, 0, 0), "module 9"),
        (At(0, 0, 9), (0, 0, 0), "head 9"),
        (At(0, 0, 0, call=3), (0, 0, 0), "call of"),
        (At(0, 0, 0, batch=-1), (0, 0, 0), "entry of the batch -1"),
        (At(0, 0, 0), (7, 0, 0), "level 7"),
        (At(0, 0, 0), (2, 3, 0), "tile 3, 0"),
    ],
)
def test_what_is_not_there_is_said(small: Path, at: At, tile: tuple[int, int, int], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Desk([str(small)]).tile(at, *tile)


def test_text_is_cut_at_its_tokens(small: Path) -> None:
    trace = Trace.load(small)
    assert trace.tokens is not None
    assert trace.tokens.texts is not None
    pieces = Desk([str(small)]).pieces(0, "tokens", 0)
    assert "".join(pieces) == trace.tokens.texts[0]
    assert len(pieces) == 700
