"""Which kind of translator a model makes."""

from __future__ import annotations

from typing import Any

from ...errors import Unsupported
from ._encoder_decoder import EncoderDecoder
from ._instructed import Instructed
from ._tokens import Tokens
from ._told import told
from ._translator import Translator

__all__ = ["translator"]


def translator(
    network: Any, tokenizer: Any, name: str, *, source: str, target: str, align: bool, beams: int
) -> Translator:
    """The translator of a model: one that has an encoder is told its languages, any other is asked in a chat.

    Raises Unsupported for a tokenizer that cannot say where its tokens lie, for a model that can be told its languages
    in none of the known ways, and for beams in a chat; InputError for languages that the model does not have.
    """
    tokens = Tokens(tokenizer, name)
    if getattr(network.config, "is_encoder_decoder", False):
        return EncoderDecoder(network, tokens, name, told(network, tokens, name, source, target), align, beams)
    if beams > 1:
        raise Unsupported(
            f"{beams} beams by {name} were asked for; it has no encoder, and is asked in a chat, greedily. Leave the "
            "beams out, or use a translation model, such as marian-en-pt."
        )
    return Instructed(network, tokens, name, source, target, align)
