"""The readings of support against plain forward passes, and the rule over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sightline.errors import SpecError
from sightline.evidence import SUPPORT, TOLD, Support, answerable, document_drop, find_support, refusal
from sightline.reader import Reader
from sightline.tasks._check import REFUSALS, check
from sightline.tasks._prompt import Prompt
from tiny_model import DOCUMENT, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT = Prompt(DOCUMENT, "How is the fare paid?", TOKENIZER)
ANSWER = TOKENIZER("Fares are paid in eggs.")["input_ids"]
CHECK = check(PROMPT)
TOLERANCE = 1e-3


@pytest.fixture
def model() -> Any:
    return tiny_model(len(TOKENIZER))


@pytest.fixture
def reader(model: Any) -> Reader:
    reader = Reader(model)
    reader.read(PROMPT.tokens[:-1])
    return reader


def rows(model: Any, prompt: tuple[int, ...], answer: list[int]) -> torch.Tensor:
    """Log-probabilities [T, vocabulary] of the rows that predict an answer, by one pass over everything."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 :]
    return torch.log_softmax(logits.double(), -1)


def plain(model: Any, prompt: tuple[int, ...], answer: list[int]) -> float:
    return sum(float(row[token]) for row, token in zip(rows(model, prompt, answer), answer, strict=False))


def test_the_refusal_is_the_probability_of_all_its_words_together(model: Any, reader: Reader) -> None:
    of_each = [plain(model, tuple(CHECK.inviting), list(words)) for words in CHECK.refusals]
    assert abs(of_each[0] - of_each[1]) > 10 * TOLERANCE, "else one could stand for the other"
    together = float(torch.tensor(of_each).exp().sum().log())
    assert refusal(reader, PROMPT.tokens, CHECK) == pytest.approx(together, abs=TOLERANCE)
    for words, alone in zip(CHECK.refusals, of_each, strict=True):
        assert refusal(reader, PROMPT.tokens, replace(CHECK, refusals=[words])) == pytest.approx(alone, abs=TOLERANCE)


def test_answerable_is_the_log_odds_of_yes_after_the_check(model: Any, reader: Reader) -> None:
    last = rows(model, tuple(CHECK.asking), [])[-1].exp()
    expected = torch.log(last[sorted(CHECK.yes)].sum() / last[sorted(CHECK.no)].sum())
    found = answerable(reader, PROMPT.tokens, CHECK)
    assert found == pytest.approx(float(expected), abs=TOLERANCE)
    # The negative control: with the replies exchanged it changes its sign.
    assert abs(found) > 10 * TOLERANCE
    exchanged = replace(CHECK, yes=CHECK.no, no=CHECK.yes)
    assert answerable(reader, PROMPT.tokens, exchanged) == pytest.approx(-found, abs=TOLERANCE)


def test_answerable_depends_on_the_document(model: Any, reader: Reader) -> None:
    other = Prompt(DOCUMENT.replace("eggs", "clocks"), PROMPT.question, TOKENIZER)
    elsewhere = Reader(model)
    elsewhere.read(other.tokens[:-1])
    found = answerable(elsewhere, other.tokens, check(other))
    assert abs(found - answerable(reader, PROMPT.tokens, CHECK)) > TOLERANCE


@pytest.mark.parametrize("held", [len(PROMPT.tokens) - 1, len(PROMPT.tokens) + 3])
def test_the_three_readings_in_any_order_leave_the_reader_as_it_was(model: Any, held: int) -> None:
    reader = Reader(model)
    reader.read([*PROMPT.tokens, *ANSWER][:held])
    found = find_support(reader, PROMPT.tokens, PROMPT.places, ANSWER, CHECK)
    assert reader.length == len(PROMPT.tokens) - 1
    assert reader.log_prob(PROMPT.tokens[-1:], ANSWER) == pytest.approx(
        plain(model, PROMPT.tokens, ANSWER), abs=TOLERANCE
    )
    drop = document_drop(reader, PROMPT.tokens, PROMPT.places, ANSWER)
    assert found.document_drop == pytest.approx(drop, abs=TOLERANCE)
    assert found.answerable == pytest.approx(answerable(reader, PROMPT.tokens, CHECK), abs=TOLERANCE)
    assert found.refusal == pytest.approx(refusal(reader, PROMPT.tokens, CHECK), abs=TOLERANCE)


def test_a_check_that_ends_where_the_prompt_ends_or_before_it_is_read_too(model: Any, reader: Reader) -> None:
    for prompt in (PROMPT.tokens, PROMPT.tokens[:-4]):
        last = rows(model, prompt, [])[-1]
        expected = last[sorted(CHECK.yes)].logsumexp(0) - last[sorted(CHECK.no)].logsumexp(0)
        found = answerable(reader, PROMPT.tokens, replace(CHECK, asking=prompt))
        assert found == pytest.approx(float(expected), abs=TOLERANCE)


def test_the_check_asks_of_the_same_document_and_its_replies_are_apart() -> None:
    text = TOKENIZER.decode(CHECK.asking)
    assert DOCUMENT in text
    assert PROMPT.question in text
    assert "yes or no" in text
    assert CHECK.yes
    assert CHECK.no
    assert not set(CHECK.yes) & set(CHECK.no)
    assert {TOKENIZER.decode([token]).strip().lower()[:1] for token in CHECK.yes} == {"y"}
    assert {TOKENIZER.decode([token]).strip().lower()[:1] for token in CHECK.no} == {"n"}


def test_the_invitation_names_the_refusal_and_the_prompt_of_the_answer_does_not() -> None:
    assert f'answer "{REFUSALS[0]}".' in TOKENIZER.decode(CHECK.inviting)
    assert REFUSALS[0] not in TOKENIZER.decode(PROMPT.tokens)


def test_support_holds_from_both_thresholds_on_and_under_neither() -> None:
    enough = Support(SUPPORT, -1.0, TOLD - 1.0)
    assert enough.told == TOLD
    assert enough.holds
    assert not replace(enough, document_drop=SUPPORT - 0.01).holds
    assert not replace(enough, answerable=TOLD - 1.01).holds
    assert not replace(enough, refusal=-0.99).holds
    assert replace(enough, answerable=-20.0, refusal=-20.0 - TOLD).holds, "a sure answer outweighs a doubtful check"


def test_readings_that_cannot_be_taken_are_refused(reader: Reader) -> None:
    for broken in (replace(CHECK, refusals=[]), replace(CHECK, refusals=[ANSWER, []]), replace(CHECK, inviting=())):
        with pytest.raises(SpecError, match="was asked for after"):
            refusal(reader, PROMPT.tokens, broken)
    broken = (replace(CHECK, yes=()), replace(CHECK, no=()), replace(CHECK, no=CHECK.yes), replace(CHECK, asking=()))
    for check_ in broken:
        with pytest.raises(SpecError, match="was to be replied to with"):
            answerable(reader, PROMPT.tokens, check_)
