"""Promise: the code on the pages runs, and what they link to is there."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch

import sightline as sl
from docs.pages import DOCS, NEEDS_MODEL, ROOT, anchors, blocks, links, pages, snippets, whole

PAGES = pages()
RUNNING = [page for page in PAGES if any(block.runs for block in blocks(whole(page)))]


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def run(page: Path, text: str) -> None:
    """Run the page's blocks one after the other, as a reader does: what one defines the next may use."""
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.runs:
            # Line numbers in a traceback are those of the page.
            tree = ast.increment_lineno(ast.parse(block.text, str(page)), block.line - 1)
            exec(compile(tree, str(page), "exec"), names)


def missing(page: Path, text: str) -> list[str]:
    """The page's links and pictures that lead nowhere."""
    lost = []
    for address in links(text):
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve() if path else page
        there = target.is_file()
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(whole(target))
        if not there:
            lost.append(address)
    return lost


@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_the_code_on_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "trace-format.md":
        a_trace().save("trace.safetensors")
    run(page, whole(page))


def a_trace() -> sl.Trace:
    """The trace that the format's own example reads: one layer of an encoder, by the name that it asks for."""
    model = torch.nn.ModuleDict(
        {"model": torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict()])})}
    )
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    model.get_submodule("model.layers.0").add_module("self_attn", attention)
    x = torch.randn(1, 5, 8)
    with torch.inference_mode(), sl.record(model, {"entropy": sl.Entropy()}) as seen:
        attention(x, x, x)
    return seen.trace()


def test_pages_with_code_are_found_and_a_wrong_line_is_an_error_on_its_line(tmp_path: Path) -> None:
    assert {"index.md", "how-attention-works.md", "guides/operator.md"} <= set(map(name, RUNNING))
    with pytest.raises(AssertionError) as error:
        run(tmp_path / "page.md", "# A page\n\n```python\nassert True\nassert 1 == 2\n```\n")
    assert error.tb is not None
    at = error.tb
    while at.tb_next is not None:
        at = at.tb_next
    assert at.tb_lineno == 5


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_is_not_run_is_python_and_asks_for_names_that_are_there(page: Path) -> None:
    for block in blocks(whole(page)):
        if block.language != "python":
            continue
        assert "--8" not in block.text  # a file that was to be taken in, and was not
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sightline":
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    assert missing(page, page.read_text()) == []
    # What a page takes in is written for its own place, and links from there: the site has only what lies in docs.
    for path, part in snippets(page.read_text()):
        assert (ROOT / path).is_file(), path
        assert part is None or f"[start:{part}]" in (ROOT / path).read_text()


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# Here\n\n[a](nowhere.md) ![b](none.png) [c](#here) [d](#there) [e](https://example.com) `[f](code.md)`\n"
    page.write_text(text)
    assert missing(page, text) == ["nowhere.md", "none.png", "#there"]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    def listed(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inside = entry.values() if isinstance(entry, dict) else entry
        return [path for part in inside for path in listed(part)]  # type: ignore[union-attr]

    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(listed(project["nav"])) == sorted(map(name, PAGES))


def test_every_picture_is_shown_and_none_is_large() -> None:
    shown = {(page.parent / address).resolve() for page in PAGES for address in links(whole(page))}
    shown |= {(ROOT / address).resolve() for address in links((ROOT / "README.md").read_text())}
    pictures = [path for path in DOCS.rglob("*") if path.suffix in (".png", ".svg")]
    assert [path.name for path in pictures if path.resolve() not in shown] == []
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


def test_the_reference_has_every_public_name() -> None:
    written = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    asked = {line.split(".")[-1] for line in re.findall(r"^::: (\S+)$", written, re.MULTILINE)}
    errors = {
        name for name in sl.__all__ if isinstance(getattr(sl, name), type) and issubclass(getattr(sl, name), Exception)
    }
    recorded = {"Tokens", "Trace"}  # shown by the page of sightline.recording, which asks for the whole package
    assert set(sl.__all__) - errors - recorded - {"__version__"} <= asked
    assert {"errors", "recording"} <= asked


def test_blocks_that_are_not_run_say_so_and_are_few() -> None:
    kept = {name(page): [block for block in blocks(whole(page)) if block.language == "python"] for page in PAGES}
    skipped = sum(NEEDS_MODEL in block.text for found in kept.values() for block in found)
    assert skipped < sum(map(len, kept.values())) / 2
