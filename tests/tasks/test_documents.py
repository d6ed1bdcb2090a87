from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.tasks.documents import Document, read_document, read_documents


def written(folder: Path, data: bytes) -> str:
    path = folder / "document.txt"
    path.write_bytes(data)
    return str(path)


def test_text_is_read_with_its_line_ends_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, "\ufeffOne é.\r\nTwo.\n".encode())) == "One é.\r\nTwo.\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b" \n\t\n", "it is empty"),
        (b"PK\x03\x04\x00\x00", "binary file"),
        (b"one\ntwo\ncaf\xe9 three", r"not UTF-8 text \(byte 11, line 3\)"),
        ("wide".encode("utf-16"), "UTF-16"),
        (b"%PDF-1.7\n1 0 obj", "it is a PDF. Convert it to text first, for instance with: pdftotext"),
    ],
)
def test_what_is_not_text_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"document.txt' was given as the document; .*{why}"):
        read_document(written(tmp_path, data))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_document(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="it is a folder"):
        read_document(str(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    place = written(tmp_path, b"text")
    os.chmod(place, 0)
    with pytest.raises(InputError, match="it cannot be read: Permission denied"):
        read_document(place)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Grüße.".encode())))
    assert read_document("-") == "Grüße."
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match="standard input was given as the document; it is empty"):
        read_document("-")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of documents, with much beside them."""
    for name, data in {
        "b.txt": "Zwei.",
        "a.md": "\ufeffOne.\r\n",
        "deep/er/c.rst": "Tres.",
        "deep/noext": "Four.",
        "empty.txt": " \n",
        "paper.pdf": "%PDF-1.4",
        ".hidden.txt": "No.",
        ".git/config": "No.",
    }.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode())
    (tmp_path / "docs" / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (tmp_path / "docs" / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    return tmp_path / "docs"


def test_a_folder_gives_its_texts_in_order_and_says_what_it_skipped(folder: Path) -> None:
    documents, skipped = read_documents([str(folder)])
    assert [(Path(str(d.name)).relative_to(folder).as_posix(), d.text) for d in documents] == [
        ("a.md", "One.\r\n"),
        ("b.txt", "Zwei."),
        ("deep/noext", "Four."),
        ("deep/er/c.rst", "Tres."),
    ]
    assert {Path(s.place).name: s.why for s in skipped} == {
        ".git": "it is hidden",
        ".hidden.txt": "it is hidden",
        "empty.txt": "it is empty",
        "image.png": "it is a binary file (it holds NUL bytes)",
        "latin.txt": "it is not UTF-8 text (byte 3, line 1)",
        "paper.pdf": "it is a PDF",
    }


def test_a_file_that_is_found_twice_is_read_once_and_under_its_first_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    documents, skipped = read_documents(["b.txt", str(folder), "b.txt", "deep"])
    names = [Path(str(d.name)).name for d in documents]
    assert names == ["b.txt", "a.md", "noext", "c.rst"]
    assert documents[0].name == "b.txt"
    assert len(skipped) == len({s.place for s in skipped})


def test_a_folder_without_text_and_standard_input_twice_are_refused(folder: Path) -> None:
    (folder / ".git" / "config").write_bytes(b"\0")
    with pytest.raises(InputError, match=r"'.*git' was given as a folder of documents; it holds no file of UTF-8 text"):
        read_documents([str(folder / ".git")])
    with pytest.raises(InputError, match="more than once"):
        read_documents(["-", "-"])


def test_a_named_file_that_is_no_text_is_an_error_and_not_skipped(folder: Path) -> None:
    with pytest.raises(InputError, match="it is a PDF"):
        read_documents([str(folder / "b.txt"), str(folder / "paper.pdf")])
    documents, skipped = read_documents([str(folder / ".hidden.txt")])  # named, so that it is wanted
    assert (documents, skipped) == ([Document(str(folder / ".hidden.txt"), "No.")], [])


def test_a_folder_that_links_to_itself_is_read_once(folder: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    assert len(read_documents([str(folder)])[0]) == 4


def test_standard_input_is_one_of_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Grüße.".encode())))
    documents, _ = read_documents([str(folder / "b.txt"), "-"])
    assert documents[1] == Document("standard input", "Grüße.")
