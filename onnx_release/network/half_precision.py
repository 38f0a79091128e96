"""Bring networks in float16 and bfloat16 to float32, in which they are exported and compared."""

import functools
import sys
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

from onnx_release.core.spec import Spec

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


def bring_to_float32(network: torch.nn.Module, spec: Spec) -> None:
    """Convert float16 and bfloat16 weights to float32 in place, with a note on stderr; without any, do nothing.

    No digit is lost. ONNX Runtime has few operators in bfloat16, and the variant fp16 is made from float32. The network
    then also takes inputs in half precision, computes in float32 where its code asks for less, and returns
    floating-point outputs in the declared dtypes.
    """
    weights = [*network.parameters(), *network.buffers()]
    found = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights if tensor.dtype in WIDER})
    if not found:
        return
    print(f"note: the network's weights are in {' and '.join(found)}: they are converted to float32", file=sys.stderr)
    network._apply(wider)
    forward = network.forward

    @functools.wraps(forward)
    def in_float32(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(wider, (args, kwargs))
        with Float32Mode():
            return forward(*args, **kwargs)

    network.forward = in_float32
    network.register_forward_hook(lambda _module, _inputs, result: in_declared_dtypes(spec, result))


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
