"""Small maps in the terminal: what they show is the trace's matrices, in colour, in shades, and in pipes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from sightline import Trace
from sightline.cli._map import Map, draw, maps
from sightline.cli._run import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def trace(model: str, document: str, tmp_path: Path, capfd: Captured) -> str:
    target = str(tmp_path / "run.safetensors")
    assert run(["record", model, document, "-o", target, "--keep", "qk", "--observe", "entropy,map16"]) == 0
    capfd.readouterr()
    return target


def weights(trace: str, layer: int) -> torch.Tensor:
    """[heads, n, m], by the definition."""
    return Trace.load(trace).matrix(layer).dense()[0].double()


def test_a_heads_map_is_the_mean_share_that_blocks_get(trace: str, capfd: Captured) -> None:
    assert run(["inspect", trace, "--map", "1.2", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["maps"]
    assert (found["module"], found["head"], found["kind"]) == ("model.layers.1.self_attn", 2, "decoder")
    p, side = weights(trace, 1)[2], found["rows"]
    assert found["cols"] == side
    for r, row in enumerate(found["shares"]):
        for c, share in enumerate(row):
            exact = p[r * side : (r + 1) * side, c * side : (c + 1) * side].sum(1).mean()
            assert share == pytest.approx(float(exact), rel=1e-4, abs=1e-7)


def test_without_a_head_it_is_the_mean_of_all(trace: str, capfd: Captured) -> None:
    assert run(["inspect", trace, "--map", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["maps"]
    assert (found["module"], found["head"], found["heads"]) == (None, None, 8)
    p, side = torch.cat([weights(trace, 0), weights(trace, 1)]), found["rows"]
    exact = p[:, side : 2 * side, :side].sum(2).mean()
    assert found["shares"][1][0] == pytest.approx(float(exact), rel=1e-4)
    assert run(["inspect", trace, "--json"]) == 0
    assert "maps" not in json.loads(capfd.readouterr().out)


def test_in_a_pipe_it_is_plain_and_small(trace: str, capfd: Captured) -> None:
    assert run(["inspect", trace, "--map", "0.1"]) == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out
    _, *drawn, legend, axes = out[out.index("model.layers.0.self_attn, head 1 (self-attention)") :].splitlines()
    assert 4 <= len(drawn) <= 32
    assert all(re.fullmatch("[ ·░▒▓█]{1,64}", line) for line in drawn)
    assert drawn[0].startswith("█")  # the first queries see the first keys alone
    assert len(drawn[-1]) > len(drawn[0])  # and nobody sees what comes later
    assert legend == "█ 100% of a query's attention, fading to 0.1%"
    assert re.fullmatch(r"keys across by \d+, queries down by \d+", axes)
    assert run(["inspect", trace]) == 0
    assert "fading to" not in capfd.readouterr().out


def drawing(shares: list[list[float]], *, colours: str | None, width: int = 70, no_color: bool = False) -> list[str]:
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=True, color_system=colours, width=width, no_color=no_color, legacy_windows=False
    )
    draw(Map("decoder", None, None, 1, 8, 8, shares), "A map", console)
    return text.getvalue().splitlines()[2:-2]


SHARES = [[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.01, 0.03, 0.96]]


def test_on_a_terminal_a_character_is_two_blocks_in_their_colours() -> None:
    lines = drawing(SHARES, colours="truecolor")
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines] == ["▀▀▀", "▀▀▀"]
    first, *_ = re.findall(r"\x1b\[([\d;]+)m▀", lines[0])
    assert first.startswith("38;2;255;244;214;48;2;")  # the largest share, above one of a tenth
    assert first != re.findall(r"\x1b\[([\d;]+)m▀", lines[0])[2]
    assert "48;2" not in lines[1]  # the last row has none below it


@pytest.mark.parametrize("options", [{"colours": None}, {"colours": "truecolor", "no_color": True}])
def test_without_colours_it_is_shades(options: dict[str, object]) -> None:
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in drawing(SHARES, **options)]  # type: ignore[arg-type]
    assert [line.rstrip() for line in lines] == ["██", "░▒█"]


@pytest.mark.parametrize(("width", "side"), [(100, 64), (64, 64), (63, 32), (16, 16)])
def test_it_is_as_wide_as_there_is_room(width: int, side: int, tmp_path: Path, model: str) -> None:
    text = tmp_path / "long.txt"
    text.write_text("The ferry leaves at six. It carries the post. " * 30)
    target = str(tmp_path / "t")
    assert run(["record", model, str(text), "-o", target, "--keep", "qk", "--observe", "entropy", "--layers", "0"]) == 0
    (found,) = maps(Trace.load(target), "all", ["decoder"], width)
    assert side // 2 < len(found.shares) <= side
    assert all(cell_len(re.sub(r"\x1b\[[\d;]*m", "", line)) <= side for line in drawing(found.shares, colours="256"))


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("1.9", "model.layers.1.self_attn has the heads 0, 1, 2, 3. Choose one"),
        ("7.0", "the layer matches 0 modules. Write LAYER.HEAD"),
        ("*.0", "the layer matches 2 modules"),
        ("nonsense", "the layer matches 0 modules"),
        ("0.-1", "has the heads 0, 1, 2, 3"),
    ],
)
def test_a_head_that_is_not_there_is_said(which: str, says: str, trace: str, capfd: Captured) -> None:
    assert run(["inspect", trace, "--map", which]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err


def test_a_trace_of_which_no_map_can_be_drawn_is_said(
    model: str, document: str, tmp_path: Path, capfd: Captured
) -> None:
    target = str(tmp_path / "t")
    assert run(["record", model, document, "-o", target, "--observe", "entropy"]) == 0
    assert run(["inspect", target, "--map"]) == 2
    assert "neither the masses of blocks were recorded nor queries and keys" in capfd.readouterr().err
