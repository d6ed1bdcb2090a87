"""Text on a pipe comes in whole paragraphs, as soon as they are there."""

from __future__ import annotations

import io

import pytest

from sightline.tasks.translation.arriving import arriving


class Slowly(io.BytesIO):
    """A pipe that hands over a few bytes at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(3)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_chunks_are_whole_paragraphs_and_together_the_text(end: str) -> None:
    text = f"é one{end}two{end}{end}{end}three 👍{end} \t{end}```{end}a{end}{end}b{end}```{end}{end}four"
    chunks = list(arriving(Slowly(b"\xef\xbb\xbf" + text.encode())))
    assert "".join(chunks) == text
    assert chunks[0].strip() == f"é one{end}two"
    assert any(f"a{end}{end}b" in chunk for chunk in chunks)
    assert chunks[-1] == "four"
    assert list(arriving(io.BytesIO(text.encode()))) == [text[: text.index("four")], "four"]
