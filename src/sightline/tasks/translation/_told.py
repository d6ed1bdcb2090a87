"""How a model with an encoder is told which languages: by tokens, by a word before the text, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InputError, Unsupported
from ...sentences import Span
from ._languages import chosen
from ._tokens import Tokens

__all__ = ["Told", "told"]


@dataclass(frozen=True)
class Told:
    """The tokens before a text and after it, and what `generate` is told beside."""

    head: tuple[int, ...]
    tail: tuple[int, ...]
    options: dict[str, int]


def told(network: Any, tokens: Tokens, name: str, source: str, target: str) -> Told:
    """How this model is told to translate from `source` to `target`.

    - M2M100, NLLB and mBART read the language's token, and write that of the target first.
    - T5 reads a text before the text, which its configuration has for each pair (`task_specific_params`), or for all
      (`prefix`).
    - Marian models of several languages read the target's token (">>por<<") first.
    - All others translate between two languages, whichever these are, and are told nothing.

    Raises InputError for languages that the model does not have, Unsupported for one whose languages cannot be listed.
    """
    tokenizer = tokens.tokenizer
    if hasattr(tokenizer, "src_lang"):
        return _by_tokens(network, tokens, name, source, target)
    head, tail = map(tuple, tokens.framed())
    several = getattr(tokenizer, "supported_language_codes", None)
    if several:
        code = chosen(target, [one.strip("<>") for one in several], name)
        return Told((*head, int(tokenizer.convert_tokens_to_ids(f">>{code}<<"))), tail, {})
    before = _prefix(network.config, name, source, target)
    ids = tokens.of(before, Span(0, len(before)))[0] if before else ()
    return Told((*head, *ids), tail, {})


def _by_tokens(network: Any, tokens: Tokens, name: str, source: str, target: str) -> Told:
    tokenizer = tokens.tokenizer
    there = _languages(tokenizer)
    if not there:
        raise Unsupported(
            f"a translation by {name} was asked for; it is told its languages by tokens, and its tokenizer, "
            f"{type(tokenizer).__name__}, does not say which. Use a model of the M2M100, NLLB or mBART kind."
        )
    reads, writes = there[chosen(source, there, name)], there[chosen(target, there, name)]
    before = tokenizer.src_lang
    try:
        tokenizer.src_lang = next(code for code, i in there.items() if i == reads)
        head, tail = map(tuple, tokens.framed())
    finally:
        tokenizer.src_lang = before
    # The first mBART was trained to start from the language; all later ones write it as their first token.
    starts = type(tokenizer).__name__.removesuffix("Fast") == "MBartTokenizer"
    return Told(head, tail, {"decoder_start_token_id" if starts else "forced_bos_token_id": writes})


def _languages(tokenizer: Any) -> dict[str, int]:
    """The languages of a tokenizer that is told by tokens: code → token."""
    codes = getattr(tokenizer, "lang_code_to_id", None)
    if codes:
        found = {str(code): int(i) for code, i in codes.items()}
    else:
        special = [str(token) for token in getattr(tokenizer, "extra_special_tokens", ()) or ()]
        found = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in special if "_" in token}
    return {code: i for code, i in found.items() if i != tokenizer.unk_token_id}


def _prefix(config: Any, name: str, source: str, target: str) -> str:
    """The text that is read before the text, without the blank after it; "" for none."""
    tasks: dict[str, Any] = getattr(config, "task_specific_params", None) or {}
    pairs = {key.removeprefix("translation_"): tasks[key] for key in tasks if key.startswith("translation_")}
    if f"{source}_to_{target}" in pairs:
        return str(pairs[f"{source}_to_{target}"].get("prefix") or "").rstrip()
    if getattr(config, "prefix", None):
        return str(config.prefix).rstrip()
    if pairs:
        raise InputError(
            f"a translation from {source!r} to {target!r} by {name} was asked for; its configuration has a prefix for "
            f"{', '.join(pair.replace('_to_', ' → ') for pair in pairs)}. Choose one of these, or another model."
        )
    return ""
