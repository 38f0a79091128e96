"""Load a model's PyTorch network by the model's name, and run it on numpy arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from onnx_release.errors import NetworkError
from onnx_release.model_data import load_module
from onnx_release.spec import Spec, check_array


def load_network(model: str, raw: Path) -> torch.nn.Module:
    """The network that models/`model`/network.py builds from `raw`. Raises NetworkError unless it is in eval mode."""
    network = load_module(model, "network", ("build",)).build(raw)
    if not isinstance(network, torch.nn.Module):
        raise NetworkError(f"build() in models/{model}/network.py returns {type(network).__name__}, not a torch module")
    refuse_training(network)
    return network


def refuse_training(network: torch.nn.Module) -> None:
    """Raise NetworkError if any module is in training mode, where dropout and batch norm change the answers."""
    training = [
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if module.training
    ]
    if training:
        more = f" and {len(training) - 3} more" if len(training) > 3 else ""
        raise NetworkError(
            f"in training mode: {', '.join(training[:3])}{more}. End build() with `return network.eval()`"
        )


def run_network(
    network: torch.nn.Module, spec: Spec, inputs: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float32
) -> dict[str, np.ndarray]:
    """The network's outputs by their declared names; inputs go in by position, in the spec's order.

    Floating-point inputs are cast to `dtype`, which must be the network's own; floating-point outputs come back
    in it. Raises NetworkError if the network fails, for another number of outputs than declared, and for NaN or
    infinity.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(inputs[tensor.name])) for tensor in spec.inputs]
    try:
        with torch.inference_mode():
            result = network(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors))
    except (RuntimeError, TypeError, ValueError, IndexError) as cause:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        kind = str(dtype).removeprefix("torch.")
        raise NetworkError(
            f"the network fails in {kind} on {shapes}: {cause}\n"
            "It must run at every declared size, and in float64 too, so forward() makes its constants in the dtype of x"
        ) from cause
    values = (
        [result] if isinstance(result, torch.Tensor) else list(result.values() if isinstance(result, dict) else result)
    )
    if len(values) != len(spec.outputs):
        raise NetworkError(f"the network returns {len(values)} outputs, spec.yaml declares {len(spec.outputs)}")
    outputs = {tensor.name: value.numpy() for tensor, value in zip(spec.outputs, values, strict=True)}
    for name, array in outputs.items():
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise NetworkError(
                f"the network's output {name} holds {bad} NaN or infinite of {array.size} values in {array.dtype}: "
                "look at the weights and at the inputs that data.py gives"
            )
    return outputs


def check_outputs(spec: Spec, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    """Raise NetworkError where the float32 `outputs` for `inputs` contradict the spec's dtypes or shapes."""
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        check_array(tensor, str(inputs[tensor.name].dtype), inputs[tensor.name].shape, sizes)
    for tensor in spec.outputs:
        array = outputs[tensor.name]
        problem = check_array(tensor, str(array.dtype), array.shape, sizes)
        if problem:
            raise NetworkError(f"the network contradicts spec.yaml: {problem}")
