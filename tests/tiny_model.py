"""A language model and a tokenizer of the real kinds, made in milliseconds, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

DOCUMENT = """# The Ferry

The ferry to Ansel leaves at six. It carries forty people, two carts and the post.
Nobody has ever missed it twice. Captain Orla Finn built its engine from a clock!

Was it wise? She thought so.

- Fares are paid in eggs.
- Goats travel free.
"""

TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)

CONTEXT = 512


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, as in the GPT-2, Llama 3 and Qwen families."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([DOCUMENT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=TEMPLATE)


def tiny_config(vocabulary: int) -> LlamaConfig:
    """Two layers, four query heads over two key heads."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=1,
        initializer_range=0.3,  # larger than usual, so that attention is not flat
    )


def tiny_model(vocabulary: int, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(vocabulary)).eval()


def save_tiny(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    tiny_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
