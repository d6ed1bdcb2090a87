"""Promise: the built pages need no network, docstrings read as they are written, pictures show what their pages say."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from docs.pages import DOCS


def script(path: str) -> ModuleType:
    """A file of the documentation as a module of its own."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gallery's modules, by name."""
    pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib, which is not installed")
    monkeypatch.syspath_prepend(str(DOCS / "gallery"))
    names = ("drawing", "induction", "sinks", "retrieval", "alignment", "needle")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        sys.modules.pop(name, None)


class Numbers:
    """A tokenizer whose tokens are numbers."""

    bos_token_id = 1

    def __len__(self) -> int:
        return 300

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=torch.tensor([[int(word) for word in text.split()]]))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **sizes)).eval()


# -- pages


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://a.example/x.js"></script>', ["https://a.example/x.js"]),
        ("<script src=https://a.example/x.js></script>", ["https://a.example/x.js"]),
        ('<link rel="stylesheet" href="https://fonts.example/css">', ["https://fonts.example/css"]),
        ("<link href=https://fonts.example rel=preconnect>", ["https://fonts.example"]),
        ('<img alt="" src="https://c.example/badge.svg">', ["https://c.example/badge.svg"]),
        ('<a href="https://d.example">a link</a> <img src="own.png"> <script src="../own.js"></script>', []),
        ('<link rel="canonical" href="https://e.example/page.html">', []),
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_found(page: str, found: list[str]) -> None:
    assert script("finish.py").from_elsewhere(page) == found


def test_the_themes_script_is_replaced_by_our_own_and_all_else_is_told(tmp_path: Path) -> None:
    finish = script("finish.py")
    (tmp_path / "guides").mkdir()
    shim = f'<script src="{finish.SHIM}"></script>'
    (tmp_path / "index.html").write_text(shim)
    (tmp_path / "guides" / "page.html").write_text(shim + '<script src="https://a.example/x.js"></script>')
    assert finish.finish(tmp_path) == ["guides/page.html: https://a.example/x.js"]
    assert (tmp_path / "index.html").read_text() == '<script src="worker.js"></script>'
    assert '"../worker.js"' in (tmp_path / "guides" / "page.html").read_text()
    assert (DOCS / "worker.js").is_file()


# -- docstrings


def test_a_docstring_reads_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "griffe", SimpleNamespace(Extension=object, Object=object))
    as_markdown = script("docstrings.py").as_markdown
    said = "\n".join(
        [
            "What it is:",
            "    s = q k",
            "",
            "q: the queries, and",
            "    more of them.",
            "k, v: keys and values.",
            "Note: prose stays in its paragraph.",
            "",
            ">>> 1 + 1",
            "2",
            "",
            "And on.",
        ]
    )
    assert as_markdown(said).split("\n") == [
        "What it is:",
        "",
        "    s = q k",
        "",
        "q: the queries, and",
        "",
        "    more of them.",
        "k, v: keys and values.",
        "Note: prose stays in its paragraph.",
        "",
        "```pycon",
        ">>> 1 + 1",
        "2",
        "```",
        "",
        "And on.",
    ]
    assert as_markdown("a: one.\nb: two.") == "a: one.<br>\nb: two."
    assert as_markdown("It is.\n>>> 1\n1") == "It is.\n\n```pycon\n>>> 1\n1\n```"


# -- the gallery


def test_induction_is_scored_where_the_same_token_was_followed_by_what_comes_next(gallery: Any) -> None:
    length = 7
    ids = gallery.induction.sequences(300, 1, length, 3)
    keys = gallery.induction.keys_of_induction(length)[0, 0, :, 0]
    assert ids.shape == (3, 1 + 2 * length)
    assert keys.shape == (1 + 2 * length,)
    second = [i for i in range(len(keys)) if keys[i] >= 0]
    assert second == list(range(length + 1, 2 * length))
    for row in ids:
        assert all(row[keys[i]] == row[i + 1] and row[keys[i] - 1] == row[i] for i in second)


def test_the_score_is_the_mean_weight_on_those_keys(gallery: Any, model: LlamaForCausalLM, tmp_path: Path) -> None:
    found = gallery.induction.measure(model, Numbers(), length=9, count=1)
    assert found.scores.shape == (3, 4)
    layer, head = found.best
    weights: Tensor = found.map
    assert torch.allclose(weights.sum(-1), torch.ones(19), atol=1e-5)
    diagonal = torch.stack([weights[i, i - 9 + 1] for i in range(10, 18)]).mean()
    assert torch.isclose(found.scores[layer, head], diagonal, atol=1e-6)
    assert not torch.isclose(found.scores[layer, head], torch.stack([weights[i, i - 9] for i in range(10, 18)]).mean())
    gallery.induction.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "largest" in gallery.induction.told(found)


def test_shares_of_what_is_received_sum_to_one(gallery: Any, model: LlamaForCausalLM, tmp_path: Path) -> None:
    found = gallery.sinks.measure(model, Numbers(), " ".join(map(str, range(100, 130))))
    assert found.first.shape == (3, 4)
    assert found.received.shape == (3, 30)
    assert torch.allclose(found.received.sum(1), torch.ones(3), atol=1e-5)
    assert torch.allclose(found.first.mean(1), found.received[:, 0], atol=1e-6)
    gallery.sinks.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size < 300_000


def test_every_picture_of_the_first_page_is_drawn_by_its_script(gallery: Any, tmp_path: Path) -> None:
    make = script("how/make.py")
    assert {f"{name}.png" for name in make.PICTURES} == {path.name for path in (DOCS / "how").glob("*.png")}
    for name, draw in make.PICTURES.items():
        gallery.drawing.save(draw(), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
