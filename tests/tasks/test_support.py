"""The readings of support against plain forward passes, and the rule over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sightline.errors import SpecError
from sightline.evidence import SUPPORT, Support, affirmed, document_drop, find_support, refusal
from sightline.reader import Reader
from sightline.sentences import Span
from sightline.tasks._check import REFUSALS, check
from sightline.tasks._prompt import Prompt
from tiny_model import DOCUMENT, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT = Prompt(DOCUMENT, "How is the fare paid?", TOKENIZER)
ANSWER = TOKENIZER("Fares are paid in eggs.")["input_ids"]
CHECK = check(PROMPT, "Fares are paid in eggs.")
MOST = Span(DOCUMENT.index("Fares"), DOCUMENT.index("eggs.") + 5)
LACKING = check(PROMPT.lacking(MOST), "Fares are paid in eggs.")
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


def test_what_is_affirmed_is_the_log_odds_of_yes_after_the_check(model: Any, reader: Reader) -> None:
    asked = CHECK.asking[0]
    last = rows(model, tuple(asked), [])[-1].exp()
    expected = torch.log(last[sorted(CHECK.yes)].sum() / last[sorted(CHECK.no)].sum())
    found = affirmed(reader, PROMPT.tokens, asked, CHECK)
    assert found == pytest.approx(float(expected), abs=TOLERANCE)
    # The negative control: with the replies exchanged it changes its sign.
    assert abs(found) > 10 * TOLERANCE
    exchanged = replace(CHECK, yes=CHECK.no, no=CHECK.yes)
    assert affirmed(reader, PROMPT.tokens, asked, exchanged) == pytest.approx(-found, abs=TOLERANCE)


def test_what_is_affirmed_depends_on_the_document(model: Any, reader: Reader) -> None:
    other = Prompt(DOCUMENT.replace("eggs", "clocks"), PROMPT.question, TOKENIZER)
    elsewhere = Reader(model)
    elsewhere.read(other.tokens[:-1])
    found = affirmed(elsewhere, other.tokens, check(other, "").asking[0], CHECK)
    assert abs(found - affirmed(reader, PROMPT.tokens, CHECK.asking[0], CHECK)) > TOLERANCE


@pytest.mark.parametrize("held", [len(PROMPT.tokens) - 1, len(PROMPT.tokens) + 3])
def test_the_readings_in_any_order_leave_the_reader_as_it_was(model: Any, held: int) -> None:
    reader = Reader(model)
    reader.read([*PROMPT.tokens, *ANSWER][:held])
    found = find_support(reader, PROMPT.tokens, PROMPT.places, ANSWER, CHECK, LACKING)
    assert reader.length == len(PROMPT.tokens) - 1
    assert reader.log_prob(PROMPT.tokens[-1:], ANSWER) == pytest.approx(
        plain(model, PROMPT.tokens, ANSWER), abs=TOLERANCE
    )
    drop = document_drop(reader, PROMPT.tokens, PROMPT.places, ANSWER)
    assert found.document_drop == pytest.approx(drop, abs=TOLERANCE)
    ways = [affirmed(reader, PROMPT.tokens, asked, CHECK) for asked in CHECK.asking]
    assert abs(ways[0] - ways[1]) > 10 * TOLERANCE, "else one could stand for the other"
    assert found.answerable == pytest.approx(sum(ways), abs=TOLERANCE)
    stated = affirmed(reader, PROMPT.tokens, CHECK.stating, CHECK)
    assert abs(stated - found.answerable) > 10 * TOLERANCE, "else one could stand for the other"
    assert found.stated == pytest.approx(stated, abs=TOLERANCE)
    assert found.refusal == pytest.approx(refusal(reader, PROMPT.tokens, CHECK), abs=TOLERANCE)
    elsewhere = Reader(model)
    still = (
        sum(affirmed(elsewhere, (), asked, LACKING) for asked in LACKING.asking),
        refusal(elsewhere, (), LACKING),
    )
    told, told_still = (s + min(-r, 8.0) for s, r in ((found.answerable, found.refusal), still))
    assert abs(told - told_still) > 10 * TOLERANCE, "else the sentence would not matter"
    assert found.contrast == pytest.approx(told - told_still, abs=TOLERANCE)


def test_a_check_that_ends_where_the_prompt_ends_or_before_it_is_read_too(model: Any, reader: Reader) -> None:
    for prompt in (PROMPT.tokens, PROMPT.tokens[:-4]):
        last = rows(model, prompt, [])[-1]
        expected = last[sorted(CHECK.yes)].logsumexp(0) - last[sorted(CHECK.no)].logsumexp(0)
        found = affirmed(reader, PROMPT.tokens, prompt, CHECK)
        assert found == pytest.approx(float(expected), abs=TOLERANCE)


def test_the_check_asks_of_the_same_document_and_its_replies_are_apart() -> None:
    for asked in (*CHECK.asking, CHECK.stating):
        text = TOKENIZER.decode(asked)
        assert DOCUMENT in text
        assert PROMPT.question in text
        assert "yes or no" in text
        assert ("Fares are paid in eggs." in text.removeprefix(DOCUMENT).split(DOCUMENT)[-1]) is (
            asked is CHECK.stating
        )
    assert CHECK.yes
    assert CHECK.no
    assert not set(CHECK.yes) & set(CHECK.no)
    assert {TOKENIZER.decode([token]).strip().lower()[:1] for token in CHECK.yes} == {"y"}
    assert {TOKENIZER.decode([token]).strip().lower()[:1] for token in CHECK.no} == {"n"}


def test_the_invitation_names_the_refusal_and_the_prompt_of_the_answer_does_not() -> None:
    assert f'answer "{REFUSALS[0]}".' in TOKENIZER.decode(CHECK.inviting)
    assert REFUSALS[0] not in TOKENIZER.decode(PROMPT.tokens)


def test_support_holds_from_its_strength_on() -> None:
    enough = Support(6.0, -1.0, SUPPORT - 2.75, 1.0, 0.5)
    assert enough.strength == pytest.approx(SUPPORT)
    enough = replace(enough, answerable=enough.answerable + 1e-9)
    assert enough.holds
    for field, less in (
        ("document_drop", 5.99),
        ("refusal", -0.99),
        ("answerable", SUPPORT - 2.76),
        ("stated", 0.99),
        ("contrast", 0.49),
    ):
        weaker = replace(enough, **{field: less})
        assert weaker.strength < SUPPORT
        assert not weaker.holds
    assert replace(enough, refusal=-50.0).strength == replace(enough, refusal=-8.0).strength
    assert replace(enough, document_drop=70.0).strength == replace(enough, document_drop=10.0).strength


def test_where_the_model_says_nothing_the_document_drop_decides() -> None:
    silent = Support(3.0, -6.0, -3.0, -2.0, 0.0)
    assert silent.strength < SUPPORT
    assert silent.holds
    assert not silent.told
    assert not replace(silent, document_drop=2.99).holds
    assert not replace(silent, refusal=-5.99).holds


def test_readings_that_cannot_be_taken_are_refused(reader: Reader) -> None:
    for broken in (replace(CHECK, refusals=[]), replace(CHECK, refusals=[ANSWER, []]), replace(CHECK, inviting=())):
        with pytest.raises(SpecError, match="was asked for after"):
            refusal(reader, PROMPT.tokens, broken)
    broken = (replace(CHECK, yes=()), replace(CHECK, no=()), replace(CHECK, no=CHECK.yes), replace(CHECK, asking=[()]))
    for check_ in broken:
        with pytest.raises(SpecError, match="was to be replied to with"):
            affirmed(reader, PROMPT.tokens, check_.asking[0], check_)
    with pytest.raises(SpecError, match="it has no prompt for that"):
        find_support(reader, PROMPT.tokens, PROMPT.places, ANSWER, replace(CHECK, asking=[]), LACKING)
