"""PyTorch's `nn.MultiheadAttention` computed by Sightline, and how to put it into a model that is already there.

    import sightline.nn

    attention = sightline.nn.MultiheadAttention(512, 8)          # instead of torch.nn.MultiheadAttention
    sightline.nn.replace_attention(model)                        # in all of nn.Transformer, nn.TransformerEncoder, …

Outside of this package write `sightline.nn`, as `nn` is PyTorch's.
"""

from .multihead import MultiheadAttention
from .replacing import replace_attention, restore_attention

__all__ = ["MultiheadAttention", "replace_attention", "restore_attention"]
