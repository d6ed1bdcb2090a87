"""Whether an answer is supported: whether it rests on the document, and whether the document tells it at all.

Five readings of the model's own probabilities, in nats, of which four take a few token steps each against the cache of
the prompt, and the last what reading the rest of the document again takes:

    document drop D = log p(answer | prompt) − log p(answer | its rows may not attend to the document)
    refusal       R = log Σ_r p(r | inviting)        over ways r to say that the document does not tell
    answerable    S = Σ_a log p(yes | asking_a) − log p(no | asking_a)        over ways to ask
    stated        V = log p(yes | stating) − log p(no | stating)
    contrast      C = T − T′,   T = S + min(−R, 6)     T′: of the document without the sentence that it rests on most

`inviting` is the same question with an invitation to say where the document does not tell, `asking` asks outright
whether it does, `stating` whether it states this answer. None of them suffices. D near 0: the answer would have been
given without looking back at the document, be it that the model knew it, or that what reads the question had taken it
over. D of many nats: the answer may still rest on the wrong sentence. A large model says well whether a document tells,
and what it says depends on the question too: C is free of that, and near 0 where the sentence that the answer rests on
is not one that tells. So they are added up. A small model says much the same of every document, and never refuses:
there D decides. See `Support`.
No reading compares strings or knows a language: the caller gives the prompts, the refusals, the tokens of yes and no.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from ..errors import SpecError
from ..reader import Reader
from ..sentences import Span
from ._drops import document_drop, to_read

__all__ = ["SUPPORT", "Check", "Support", "affirmed", "find_support", "refusal"]

Tokens = Sequence[int]

SUPPORT = 5.7
"""The strength, in nats, under which an answer is called unsupported.

Chosen on 427 passages of SQuAD asked of Qwen2.5 Coder 1.5B: under it are 262 of 427 answers to questions whose sentence
was taken out, 12 of 427 that the passage tells, and all of 164 to questions that it has nothing to do with.
"""

_UNREFUSED = 6.0
"""Nats of refusal that count. A model that is still further from refusing where it is invited to says nothing by it."""
_NEEDED = 3.0
"""The document drop, in nats, that is enough for the answer of a model that says nothing."""
_RESTING = 10.0
"""Nats of the document drop that count, an eighth each: above it the answer rests on the document and on more."""


@dataclass(frozen=True)
class Support:
    """The five readings of an answer, in nats, and the rule over them: see this module's formulas."""

    document_drop: float
    refusal: float
    answerable: float
    stated: float
    contrast: float

    @property
    def strength(self) -> float:
        """S + V + min(−R, 6) / 2 + min(D, 10) / 8 + C."""
        unrefused, resting = min(-self.refusal, _UNREFUSED) / 2, min(self.document_drop, _RESTING) / 8
        return self.answerable + self.stated + unrefused + resting + self.contrast

    @property
    def told(self) -> bool:
        """Whether the model says that the document tells: `strength` ≥ `SUPPORT`."""
        return self.strength >= SUPPORT

    @property
    def holds(self) -> bool:
        """Whether it is `told`; or, where the model says nothing by its word, R ≤ −6, whether D ≥ 3.

        It may still be wrong: it may rest on the wrong sentence.
        """
        return self.told or (self.refusal <= -_UNREFUSED and self.document_drop >= _NEEDED)


@dataclass(frozen=True)
class Check:
    """What a model is asked besides the question, of the same document, in its tokens.

    inviting: the prompt that invites it to say where the document does not tell; refusals: ways to say so.
    asking: prompts that ask whether the document answers the question, each in its own words; stating: one that asks
    whether it states the answer that was given; yes, no: what a reply may begin with.
    """

    inviting: Tokens
    refusals: Collection[Tokens]
    asking: Sequence[Tokens]
    stating: Tokens
    yes: Collection[int]
    no: Collection[int]


def find_support(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    answer: Tokens,
    check: Check,
    lacking: Check,
    *,
    log_prob: float | None = None,
) -> Support:
    """The five readings of an answer; `log_prob` is log p(answer | prompt), where it is known.

    `lacking` is the check of the document without the sentence that the answer rests on most. The reader has read at
    least prompt[:-1], and holds exactly that afterwards. Time, in token steps: the answer, twice where its probability
    is not known, the refusals twice, what each prompt of the check does not have in common with the one before it,
    which is little more than the question each, and once what follows the sentence; O(N) memory. What is raised is as
    in the parts.
    """
    drop = document_drop(reader, prompt, places, answer, log_prob=log_prob)
    aside = reader.fork()
    stated = affirmed(aside, prompt, check.stating, check)
    answerable, refused = _asked(aside, check.stating, check)
    contrast = _telling(answerable, refused) - _telling(*_asked(aside, check.inviting, lacking))
    return Support(drop, refused, answerable, stated, contrast)


def _asked(reader: Reader, held: Tokens, check: Check) -> tuple[float, float]:
    """S and R of a check. The reader holds a beginning of `held`, and afterwards of check.inviting."""
    if not check.asking:
        raise SpecError(
            "a check was to ask whether the document answers the question; it has no prompt for that. Pass one or more."
        )
    answerable = 0.0
    for asked in check.asking:
        answerable += affirmed(reader, held, asked, check)
        held = asked
    return answerable, refusal(reader, held, check)


def _telling(answerable: float, refused: float) -> float:
    """T = S + min(−R, 6): that a document tells, as the model says in two ways."""
    return answerable + min(-refused, _UNREFUSED)


def refusal(reader: Reader, held: Tokens, check: Check) -> float:
    """R = log Σ over refusals r of p(r | check.inviting), in nats; without the token that would end each.

    The reader holds a beginning of `held`, and afterwards one that is a beginning of check.inviting too. Raises
    SpecError without a prompt, or without a refusal.
    """
    if not check.inviting or not check.refusals or not all(check.refusals):
        raise SpecError(
            f"the probability of {len(check.refusals)} refusals was asked for after {len(check.inviting)} tokens; the "
            "prompt and each refusal need a token or more. Pass a prompt, and one or more refusals that are not empty."
        )
    shared = _read(reader, held, check.inviting)
    of_each = [reader.log_prob(check.inviting[-1:], words) for words in check.refusals]
    reader.rewind(shared)
    return float(torch.tensor(of_each, dtype=torch.float64).logsumexp(0))


def affirmed(reader: Reader, held: Tokens, asked: Tokens, check: Check) -> float:
    """log Σ_{t in yes} p(t | asked) − log Σ_{t in no} p(t | asked), in nats.

    A term of S for one of check.asking, V for check.stating.

    The reader holds a beginning of `held`, and afterwards one that is a beginning of `asked` too. Raises SpecError
    without a prompt, without a token for either reply, or with one token for both.
    """
    if not asked or not check.yes or not check.no or set(check.yes) & set(check.no):
        raise SpecError(
            f"a check of {len(asked)} tokens was to be replied to with one of {sorted(check.yes)} for yes or of "
            f"{sorted(check.no)} for no; each of the three needs a token, and the replies tokens of their own."
        )
    shared = _read(reader, held, asked)
    logits = reader.next_logits(asked[-1])
    reader.rewind(shared)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return float(logits[sorted(check.yes)].logsumexp(0) - logits[sorted(check.no)].logsumexp(0))


def _read(reader: Reader, held: Tokens, prompt: Tokens) -> int:
    """Have the reader, which holds a beginning of `held`, hold prompt[:-1]; how much of it was there."""
    shared = min(len(prompt) - to_read(held, prompt), reader.length, len(prompt) - 1)
    reader.rewind(shared)
    reader.read(prompt[shared:-1])
    return shared
