"""What the code of a module's class says about how it attends.

Transformers has no flag for it: whether a class computes attention through its AttentionInterface stands in the class's
code alone, and Transformers itself decides by reading that (`PreTrainedModel._can_set_attn_implementation`).
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache

from torch import nn
from transformers import PreTrainedModel


@cache
def code(kind: type[nn.Module]) -> str:
    """The code of the methods of a class, inherited ones included.

    "" for PyTorch's classes, for whole models, which leave attention to their parts, and where no code is to be had.
    """
    found: dict[str, str] = {}
    if issubclass(kind, PreTrainedModel):
        return ""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, member in vars(base).items():
            function = inspect.unwrap(member) if callable(member) and not inspect.isclass(member) else None
            if name in found or not inspect.isfunction(function):
                continue
            try:
                found[name] = textwrap.dedent(inspect.getsource(function))
            except (OSError, TypeError):
                continue  # defined where no file holds it: nothing can be read, and the checks of each call remain
    return "\n".join(found.values())


def dispatches(kind: type[nn.Module]) -> bool:
    """Whether the class attends through Transformers' AttentionInterface."""
    return ".get_interface(" in code(kind)


def attends_by_itself(kind: type[nn.Module]) -> bool:
    """Whether the class is an attention that takes the softmax of products of q and k in its own code."""
    if not kind.__name__.endswith("Attention") or dispatches(kind):
        return False
    return "softmax" in code(kind) and re.search(r"matmul|einsum|bmm| @ ", code(kind)) is not None


@cache
def arguments(kind: type[nn.Module]) -> frozenset[str]:
    """The names of the arguments that the class passes on from itself, as `attention_interface(self, …, name=…)`."""
    if not dispatches(kind):
        return frozenset()
    return frozenset(
        keyword.arg
        for call in _calls(code(kind))
        if call.args and isinstance(call.args[0], ast.Name) and call.args[0].id == "self"
        for keyword in call.keywords
        if keyword.arg is not None
    )


def _calls(source: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
