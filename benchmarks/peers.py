"""Who is measured: Sightline's backends, whichever there are, and others that compute attention on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .cases import Case, Inputs
from .definition import Results, attend

Call = Callable[[], Results]
#: Who stores the matrix is left out where it would take more than this many bytes.
MATRIX_LIMIT = 2**30
#: And the backend that is the definition, which stores it several times over, beyond this many.
DEFINITION_LIMIT = 2**26


def _never(_: Case) -> str | None:
    return None


@dataclass(frozen=True)
class Contender:
    """prepare: everything done once for a case, giving the call that is timed.

    refuses: why a case isn't for it, or None. absent: why it cannot run on this machine. observes: whether it can
    observe weights. ours: a backend of Sightline's. slow: --quick spares it.
    """

    name: str
    prepare: Callable[[Case, Inputs], Call]
    refuses: Callable[[Case], str | None] = _never
    absent: str | None = None
    observes: bool = False
    ours: bool = False
    slow: bool = False


def contenders() -> dict[str, Contender]:
    """Sightline's backends first, then the peers, by name."""
    return {c.name: c for c in (*_backends(), *_PEERS)}


def differentiated(case: Case, x: Inputs, forward: Callable[[Tensor, Tensor, Tensor], Results]) -> Call:
    """The call of a function of q, k and v: as it is, or with the gradients of all three."""
    if not case.backward:

        def call() -> Results:
            with torch.no_grad():
                return forward(x.q, x.k, x.v)

        return call
    leaves = [t.detach().requires_grad_() for t in (x.q, x.k, x.v)]

    def both() -> Results:
        results = forward(*leaves)
        gradients = torch.autograd.grad(results["output"], leaves, x.grad)
        return {"output": results["output"].detach(), **dict(zip(("dq", "dk", "dv"), gradients))}

    return both


# -- Sightline ---------------------------------------------------------------------------------------------------------


def _backends() -> list[Contender]:
    import sightline

    return [_backend(info) for info in sightline.backends()]


def _backend(info: Any) -> Contender:
    import sightline

    def prepare(case: Case, x: Inputs) -> Call:
        mask = sightline.Causal() if case.causal else None
        asked = case.reductions()

        def forward(q: Tensor, k: Tensor, v: Tensor) -> Results:
            seen = sightline.observe(q, k, v, asked, mask=mask, backend=info.name)
            return {"output": seen.output, **seen}

        return differentiated(case, x, forward)

    def refuses(case: Case) -> str | None:
        missing = [name for name, _ in case.observed if not hasattr(sightline, name)]
        if missing:  # another commit's
            return f"it has no {' and no '.join(missing)} yet"
        return _large(DEFINITION_LIMIT)(case) if info.name == "dense" else None

    absent = None if info.available else "; ".join(info.reasons)
    return Contender(info.name, prepare, refuses, absent, observes=True, ours=True)


def _large(limit: int) -> Callable[[Case], str | None]:
    """Refuse where the stored matrix would take more bytes."""
    why = f"it would store a matrix of more than {limit >> 20} MiB"
    return lambda case: why if case.matrix > limit else None


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def sdpa(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Results:
    """PyTorch's scaled_dot_product_attention."""
    shared = case.h != case.hk
    return {"output": F.scaled_dot_product_attention(q, k, v, is_causal=case.causal, enable_gqa=shared)}


def _folded(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Results:
    """Query heads that share a key head, as rows of one head: each key is read once."""
    rows = q.reshape(case.b, case.hk, -1, case.d)
    made = F.scaled_dot_product_attention(rows, k, v)
    return {"output": made.reshape(case.b, case.h, case.n, case.dv)}


def _math(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Results:
    with sdpa_kernel(SDPBackend.MATH):
        return sdpa(case, q, k, v)


def _plain(function: Callable[[Case, Tensor, Tensor, Tensor], Results]) -> Callable[[Case, Inputs], Call]:
    return lambda case, x: differentiated(case, x, lambda q, k, v: function(case, q, k, v))


def _flex(case: Case, x: Inputs) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()  # past a few shapes it would stop compiling
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    mask = None
    if case.causal:
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, case.n, case.m, device="cpu")

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Results:
        return {"output": compiled(q, k, v, block_mask=mask, enable_gqa=case.h != case.hk)}

    return differentiated(case, x, forward)


def _compiler() -> str | None:
    return None if any(map(shutil.which, ("g++", "clang++", "c++"))) else "it needs a C++ compiler, and none was found"


# -- other libraries ---------------------------------------------------------------------------------------------------


def _installed(*packages: str) -> str | None:
    missing = [name for name in packages if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def _onnxruntime(case: Case, x: Inputs) -> Call:
    import onnx
    import onnxruntime

    def described(name: str, *shape: int) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    c = case
    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["o"], is_causal=int(c.causal))
    given = [described(name, *t.shape) for name, t in (("q", x.q), ("k", x.k), ("v", x.v))]
    graph = onnx.helper.make_graph([node], "attention", given, [described("o", c.b, c.h, c.n, c.dv)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = {"q": x.q.numpy(), "k": x.k.numpy(), "v": x.v.numpy()}
    return lambda: {"output": torch.from_numpy(session.run(None, arrays)[0])}


def _jax(case: Case, x: Inputs) -> Call:
    import jax

    def lengths_first(t: Tensor) -> Any:
        return jax.dlpack.from_dlpack(t.transpose(1, 2).contiguous())

    q, k, v = map(lengths_first, (x.q, x.k, x.v))
    compiled = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=case.causal))
    return lambda: {"output": torch.from_dlpack(compiled(q, k, v).block_until_ready()).transpose(1, 2)}


def _refuses(*conditions: tuple[Callable[[Case], bool], str]) -> Callable[[Case], str | None]:
    """Why a case is refused: the first condition that holds."""
    return lambda case: next((why for holds, why in conditions if holds(case)), None)


_BACKWARD = (lambda case: case.backward, "it has no gradients on CPUs")
_LARGE = (lambda case: case.matrix > MATRIX_LIMIT, f"it would store a matrix of more than {MATRIX_LIMIT >> 20} MiB")
_SHARED = (lambda case: case.h != case.hk, "the query heads share key heads: see sdpa-gqa and sdpa-folded")
_ALONE = (lambda case: case.h == case.hk, "no heads are shared")
_CAUSAL = (lambda case: case.causal, "folded rows have no order")
_HALF = (lambda case: case.dtype != "float32", "its operator has no half-precision kernel on CPUs")
_THREADS = (
    lambda case: torch.get_num_threads() != torch.multiprocessing.cpu_count(),
    "its threads cannot be limited: --threads must be the number of cores",
)

_PEERS: tuple[Contender, ...] = (
    Contender("sdpa", _plain(sdpa), _refuses(_SHARED)),
    Contender("sdpa-gqa", _plain(sdpa), _refuses(_ALONE)),
    Contender("sdpa-folded", _plain(_folded), _refuses(_ALONE, _CAUSAL)),
    Contender("sdpa-math", _plain(_math), _refuses(_LARGE), slow=True),
    Contender("eager", _plain(attend), _large(MATRIX_LIMIT), observes=True),
    Contender("flex", _flex, _refuses(_BACKWARD), _compiler(), slow=True),
    Contender("onnxruntime", _onnxruntime, _refuses(_HALF, _BACKWARD, _LARGE), _installed("onnx", "onnxruntime")),
    Contender("jax", _jax, _refuses(_BACKWARD, _LARGE, _THREADS), _installed("jax")),
)
