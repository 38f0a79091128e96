"""Bring networks in float16 and bfloat16 to float32, in which they are exported and compared."""

import copy
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from onnx_release.core.spec import Spec, example_sizes
from onnx_release.network.example_inputs import example_inputs
from onnx_release.network.operators import OperatorMode

WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


class Float32Mode(TorchFunctionMode):
    """Makes float32 wherever the code of a network asks for float16 or bfloat16 by name."""

    def __torch_function__(  # torch's own name
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.Tensor.half, torch.Tensor.bfloat16):
            return args[0].float()
        args, kwargs = tree_map_only(torch.dtype, lambda dtype: WIDER.get(dtype, dtype), (args, kwargs or {}))
        return func(*args, **kwargs)


class Halves(OperatorMode):
    """Collects the dtypes of half precision in which operators give their results."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def run_operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator and keep the dtypes of its results."""
        result = func(*args, **kwargs)
        dtypes = (leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        self.found.update(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype in WIDER)
        return result


def copy_to_run(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of the network that shares its weights.

    A tensor that autograd computed is copied without its history, with which deepcopy refuses it: nn.utils.weight_norm
    keeps such a weight.
    """
    memo: dict[int, torch.Tensor] = {}
    for module in network.modules():
        for value in tree_leaves(vars(module)):
            if isinstance(value, torch.nn.Parameter):
                memo[id(value)] = value
            elif isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def half_inside(network: torch.nn.Module, spec: Spec) -> list[str]:
    """Return the dtypes of half precision in which a network of float32 weights computes, by a run on an example.

    It is run on a copy with the same weights, since a run may change its buffers.
    """
    if any(tensor.dtype == "float16" for tensor in (*spec.inputs, *spec.outputs)):
        return []
    examples = example_inputs(spec, example_sizes(spec))
    halves = Halves()
    # What fails here, fails in the reference, with a message.
    with suppress(Exception), warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]), halves:
        warnings.simplefilter("ignore")
        copy_to_run(network)(*examples)
    return sorted(halves.found)


@contextmanager
def without_autocast() -> Iterator[None]:
    """Let torch.autocast do nothing that is entered within the block.

    PyTorch has no switch for this. Entering a region sets the thread's state, whatever a region around it or
    torch.set_autocast_enabled has set. It asks no TorchFunctionMode but that of torch.export, which writes the region
    into the graph.
    """
    kept = torch.autocast.__enter__, torch.autocast.__exit__
    torch.autocast.__enter__ = lambda self: self  # type: ignore[method-assign]
    torch.autocast.__exit__ = lambda *_: False  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__, torch.autocast.__exit__ = kept  # type: ignore[method-assign]


def bring_to_float32(network: torch.nn.Module, spec: Spec) -> None:
    """Convert float16 and bfloat16 weights to float32 in place, with a note on stderr.

    A network that only computes in them, by autocast or by name, is brought to float32 too. Others stay as they are.

    No digit is lost. ONNX Runtime has few operators in bfloat16, and the variant fp16 is made from float32. The network
    then also takes inputs in half precision, computes in float32 where its code asks for less, and returns
    floating-point outputs in the declared dtypes.
    """
    weights = [*network.parameters(), *network.buffers()]
    found = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights if tensor.dtype in WIDER})
    inside = [] if found else half_inside(network, spec)
    if not found and not inside:
        return
    note = "the network's weights are in {}: they are" if found else "the network computes in {}: this is"
    print(f"note: {note.format(' and '.join(found or inside))} converted to float32", file=sys.stderr)
    network._apply(wider)
    # Not a function that closes over forward: a copy of the network would run with this one's weights.
    forward = network.forward
    replaced: Any = functools.update_wrapper(functools.partial(in_float32, forward), forward)
    replaced.__signature__ = inspect.signature(forward)  # update_wrapper() copies that of a function
    network.forward = replaced
    network.register_forward_hook(lambda _module, _inputs, result: in_declared_dtypes(spec, result))


def in_float32(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call forward on inputs in float32, and let what its code brings to half precision stay in float32."""
    args, kwargs = tree_map(wider, (args, kwargs))
    if torch.compiler.is_dynamo_compiling():  # torch.export with strict=True, which follows no change of a class
        with Float32Mode():
            return forward(*args, **kwargs)
    with Float32Mode(), without_autocast():
        return forward(*args, **kwargs)


def wider(value: Any) -> Any:
    """Return a tensor of half precision in float32, and anything else as it is."""
    return value.to(WIDER[value.dtype]) if isinstance(value, torch.Tensor) and value.dtype in WIDER else value


def in_declared_dtypes(spec: Spec, result: Any) -> Any:
    """Return the outputs with those that are declared in float16 in it; they are a tensor, or in the spec's order."""
    values = [result] if isinstance(result, torch.Tensor) else list(result)
    if len(values) != len(spec.outputs):
        return result
    cast = tuple(
        value.to(torch.float16) if tensor.dtype == "float16" and value.dtype == torch.float32 else value
        for tensor, value in zip(spec.outputs, values, strict=True)
    )
    return cast[0] if isinstance(result, torch.Tensor) else cast
