"""Which models cannot be served, decided before any of their modules runs.

Each refusal is a sentence with its reason. What only shows in a call (an argument that is not known, a model that reads
the values of its mask) is refused in that call, see `_arguments` and `_lazy`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel

from ..errors import Unsupported
from ._arguments import CHOSEN_WHILE_RUNNING
from ._source import arguments, attends_by_itself


def check(model: nn.Module) -> list[PreTrainedModel]:
    """The Transformers models in `model`, itself or parts of it. Raises Unsupported where one cannot be served."""
    inside = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    asked = f"{type(model).__name__} was asked to compute its attention with Sightline; "
    if not inside:
        raise Unsupported(
            f"{asked}it is not a Transformers model and holds none. Call sightline.attention or sightline.observe in "
            "its code instead."
        )
    for part in inside:
        if not part._can_set_attn_implementation():
            raise Unsupported(
                f"{asked}{'it' if part is model else type(part).__name__} {_IN_ITS_OWN_CODE} Use a model family that "
                "goes through it, such as Llama, Qwen or BERT."
            )
    for name, module in model.named_modules():
        for reason in _REASONS:
            if why := reason(module):
                raise Unsupported(f"{asked}its {name} ({type(module).__name__}) {why}")
    return inside


_IN_ITS_OWN_CODE = (
    "computes attention in its own code, not through Transformers' AttentionInterface, so it can be neither replaced "
    "nor observed."
)


def _attends_by_itself(module: nn.Module) -> str | None:
    """Part of a model may go through the interface and part not: LongT5's encoder, the vision tower of SAM."""
    if not attends_by_itself(type(module)):
        return None
    return f"{_IN_ITS_OWN_CODE} Use another model family, or record a part of this model that holds no such module."


def _chooses_keys(module: nn.Module) -> str | None:
    """DeepSeek's sparse attention and its kin: an indexer picks keys, and only eager and SDPA get them as a mask."""
    chosen = arguments(type(module)) & {"indices", "block_indices"} or hasattr(module, "indexer")
    return f"is sparse: {CHOSEN_WHILE_RUNNING}." if chosen else None


def _routes_by_the_mask(module: nn.Module) -> str | None:
    """NLLB-MoE: its router reads padding off the last row of the attention mask."""
    if getattr(module, "router_ignore_padding_tokens", True):
        return None
    return (
        "reads the values of the attention mask to route tokens to experts; under Sightline the mask is a "
        "specification, and no N×N tensor is ever built. Use the model's own implementation."
    )


_REASONS: tuple[Callable[[nn.Module], str | None], ...] = (_attends_by_itself, _chooses_keys, _routes_by_the_mask)
