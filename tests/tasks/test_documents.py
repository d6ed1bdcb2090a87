from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.tasks.documents import read_document


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
