"""Whether an answer is supported: whether it rests on the document, and whether the document tells it at all.

Three readings of the model's own probabilities, each a few token steps against the cache of the prompt, in nats:

    document drop D = log p(answer | prompt) − log p(answer | its rows may not attend to the document)
    refusal       R = log Σ_r p(r | inviting)        over ways r to say that the document does not tell
    answerable    S = log p(yes | asking) − log p(no | asking)

D near 0: the answer would have been given without the document. The other two do not depend on the answer: `inviting`
is the same question with an invitation to say where the document does not tell, `asking` asks outright whether it does.
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

__all__ = ["SUPPORT", "TOLD", "Check", "Support", "answerable", "find_support", "refusal"]

Tokens = Sequence[int]

SUPPORT = 3.0
"""The document drop, in nats, under which an answer is called unsupported: e³ ≈ 20 times less likely without it.

A convention that a pilot suggests: with Qwen2.5 Coder 1.5B, 24 answers to questions on a short text had drops from 5.5
nats up. Above it the answer rests on the document, which does not make it right.
"""

TOLD = 0.0
"""S − R, in nats, under which an answer is called unsupported: the model would rather say that the document is silent.

Of 18 passages of SQuAD asked of Qwen2.5 Coder 1.5B, S − R alone was below 0 in 18 of 18 questions of general knowledge
that the passage has nothing to do with, in 5 of 18 whose sentence had been taken out, and in 1 of 18 that the passage
answers; below 3 in 18, 12 and 3, and the 3 are those that it refused to answer when it was invited to. Too few to be
sure. SmolLM2 135M is hardly ever in doubt: S − R was 4.8 and more on ten prompts, three of which asked of something
else. Its answers are judged by the document drop alone.
"""


@dataclass(frozen=True)
class Support:
    """The three readings of an answer, in nats, and the rule over them: see this module's formulas."""

    document_drop: float
    refusal: float
    answerable: float

    @property
    def told(self) -> float:
        """S − R: how sure the model is that the document tells, asked outright and by what it could have answered."""
        return self.answerable - self.refusal

    @property
    def holds(self) -> bool:
        """D ≥ `SUPPORT` and S − R ≥ `TOLD`. It may still be wrong: it may rest on the wrong sentence."""
        return self.document_drop >= SUPPORT and self.told >= TOLD


@dataclass(frozen=True)
class Check:
    """What a model is asked besides the question, of the same document, in its tokens.

    inviting: the prompt that invites it to say where the document does not tell; refusals: ways to say so.
    asking: the prompt that asks whether the document answers the question; yes, no: what a reply may begin with.
    """

    inviting: Tokens
    refusals: Collection[Tokens]
    asking: Tokens
    yes: Collection[int]
    no: Collection[int]


def find_support(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    answer: Tokens,
    check: Check,
    *,
    log_prob: float | None = None,
) -> Support:
    """The three readings of an answer; `log_prob` is log p(answer | prompt), where it is known.

    The reader has read at least prompt[:-1], and holds exactly that afterwards. Time, in token steps: the answer, twice
    where its probability is not known, the refusals, and what each prompt of the check and at last the prompt itself do
    not have in common with the one before it, which is little more than the question each; O(N) memory. What is raised
    is as in the parts.
    """
    drop = document_drop(reader, prompt, places, answer, log_prob=log_prob)
    readings = Support(drop, refusal(reader, prompt, check), answerable(reader, prompt, check))
    _read(reader, check.asking, prompt)
    return readings


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


def answerable(reader: Reader, held: Tokens, check: Check) -> float:
    """S = log Σ_{t in yes} p(t | check.asking) − log Σ_{t in no} p(t | check.asking), in nats.

    The reader holds a beginning of `held`, and afterwards one that is a beginning of check.asking too. Raises SpecError
    without a prompt, without a token for either reply, or with one token for both.
    """
    if not check.asking or not check.yes or not check.no or set(check.yes) & set(check.no):
        raise SpecError(
            f"a check of {len(check.asking)} tokens was to be replied to with one of {sorted(check.yes)} for yes or of "
            f"{sorted(check.no)} for no; each of the three needs a token, and the replies tokens of their own."
        )
    shared = _read(reader, held, check.asking)
    logits = reader.next_logits(check.asking[-1])
    reader.rewind(shared)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return float(logits[sorted(check.yes)].logsumexp(0) - logits[sorted(check.no)].logsumexp(0))


def _read(reader: Reader, held: Tokens, prompt: Tokens) -> int:
    """Have the reader, which holds a beginning of `held`, hold prompt[:-1]; how much of it was there."""
    shared = min(len(prompt) - to_read(held, prompt), reader.length, len(prompt) - 1)
    reader.rewind(shared)
    reader.read(prompt[shared:-1])
    return shared
