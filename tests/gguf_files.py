"""A GGUF file of a tiny language model, as the packages that carry models hold them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

WIDTH, HEADS, KEY_HEADS, FFN, LAYERS, CONTEXT = 32, 4, 2, 48, 2, 64


def write_gguf(path: Path) -> Path:
    """Two layers of the Llama kind, float32, with a byte-level vocabulary."""
    draw = np.random.default_rng(0)
    words = [*sorted(ByteLevel.alphabet()), "th", "<|end|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([1] * (len(words) - 1) + [3])
    writer.add_token_merges([])
    writer.add_eos_token_id(len(words) - 1)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(len(words) - 1)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, draw.normal(size=shape).astype(np.float32))

    tensor("token_embd.weight", len(words), WIDTH)
    tensor("output_norm.weight", WIDTH)
    keys = WIDTH // HEADS * KEY_HEADS
    for i in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH),
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", keys, WIDTH),
            ("attn_v", keys, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_norm", WIDTH),
            ("ffn_gate", FFN, WIDTH),
            ("ffn_up", FFN, WIDTH),
            ("ffn_down", WIDTH, FFN),
        ):
            tensor(f"blk.{i}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
