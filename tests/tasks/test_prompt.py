from __future__ import annotations

from typing import Any

import pytest

from sightline.errors import ModelError
from sightline.sentences import Span, sentences
from sightline.tasks._prompt import Prompt
from tiny_model import DOCUMENT

ODD = "Hëllo 😀 wörld 漢字 <|end|> x. Second one!\r\n\n  Third."


def test_the_prompt_is_what_the_chat_template_makes_of_the_text(tokenizer: Any) -> None:
    prompt = Prompt(DOCUMENT, "Who?", tokenizer)
    content = f"{DOCUMENT}\n\nUsing only the text above, answer in one short sentence. Who?"
    whole = tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert list(prompt.tokens) == list(whole["input_ids"])


@pytest.mark.parametrize("document", [DOCUMENT, ODD, "\n one", "x"])
def test_every_character_of_the_document_lies_under_a_token_and_in_order(document: str, tokenizer: Any) -> None:
    prompt = Prompt(document, "Who?", tokenizer)
    places = [place for place in prompt.places if place is not None]
    assert {at for place in places for at in range(*place)} == set(range(len(document)))
    assert places == sorted(places)
    for token, place in zip(prompt.tokens, prompt.places, strict=True):
        text = tokenizer.decode([token])
        if place is not None and "\ufffd" not in text:
            assert document[place.start : place.end] == text


def test_text_that_looks_like_a_control_token_stays_text(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    plain, odd = Prompt("A word.", "Who?", tokenizer), Prompt("A <|end|> word.", "Who <|start|>?", tokenizer)
    assert odd.tokens.count(end) == plain.tokens.count(end) == 1
    assert "A <|end|> word." in tokenizer.decode(odd.tokens)


def test_without_takes_out_a_sentence_and_the_blank_it_would_leave(tokenizer: Any) -> None:
    document = "One. Two. Three.\n\nFour."
    left = {}
    for span in sentences(document):
        tokens = Prompt(document, "Who?", tokenizer).without(span)
        text = tokenizer.decode(tokens)
        left[document[span.start : span.end]] = text[text.index("user\n") + 5 : text.index("\n\nUsing")]
    assert left == {
        "One.": "Two. Three.\n\nFour.",
        "Two.": "One. Three.\n\nFour.",
        "Three.": "One. Two.\n\nFour.",
        "Four.": "One. Two. Three.\n\n",
    }


def test_without_the_only_sentence_leaves_the_question(tokenizer: Any) -> None:
    assert "Who?" in tokenizer.decode(Prompt("Only.", "Who?", tokenizer).without(Span(0, 5)))


def test_a_tokenizer_without_a_chat_template_gets_plain_text(tokenizer: Any) -> None:
    class Bare:
        chat_template = None
        bos_token = "<|start|>"
        is_fast = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return tokenizer(*args, **kwargs)

    prompt = Prompt("One.", "Who?", Bare())
    assert tokenizer.decode(prompt.tokens).startswith("<|start|>One.\n\n")
    assert tokenizer.decode(prompt.tokens).endswith("Who?\nAnswer:")


def test_a_tokenizer_without_offsets_is_refused(tokenizer: Any) -> None:
    class Slow:
        chat_template = None
        bos_token = ""
        is_fast = False

    with pytest.raises(ModelError, match=r"cannot say where its tokens lie\. Use a model with a fast tokenizer"):
        Prompt("One.", "Who?", Slow())
