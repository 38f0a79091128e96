"""Load a model's PyTorch network by the model's name, and run it on numpy arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnx_release.core.errors import NetworkError, ReleaseError, SpecError
from onnx_release.core.paths import MODELS
from onnx_release.core.plain_text import first_few
from onnx_release.core.spec import CASTS, Spec, check_array, check_inputs, load_spec
from onnx_release.data.model_data import load_module, place_of, reason_of
from onnx_release.network.arguments import take_by_name
from onnx_release.network.half_precision import bring_to_float32
from onnx_release.network.hugging_face import load_pretrained, pretrained_class
from onnx_release.network.operators import eager_operators
from onnx_release.network.outputs import array_of, take_outputs
from onnx_release.network.source_network import as_module, load_source_network
from onnx_release.network.wrappers import unwrapped


def load_network(model: str, raw: Path) -> torch.nn.Module:
    """Load the network of `network_as_built`. Raises NetworkError if it is not in eval mode."""
    network = network_as_built(model, raw)
    refuse_training(network)
    return network


def network_as_built(model: str, raw: Path) -> torch.nn.Module:
    """Load the network of models/`model` with its checkpoint in `raw`, in float32 and in the mode that build() leaves.

    It takes the inputs of the spec by position and returns a tensor, or the outputs of the spec in order, whatever the
    arguments and the results of its own forward() are. Raises NetworkError if build() fails or does not return a
    network, if a weight of it is sparse, or if the inputs' names do not say where they go, and SpecError as
    `network_source` does.
    """
    spec, source = load_spec(model), network_source(model)
    if source is None:
        network = load_source_network(model, spec, raw)
    else:
        network = load_pretrained(source, spec, raw) if isinstance(source, str) else build_network(source, model, raw)
    refuse_sparse(network)
    take_by_name(network, [tensor.name for tensor in spec.inputs])
    network.register_forward_hook(lambda _module, _inputs, result: in_order_of_spec(spec, result))
    bring_to_float32(network, spec)
    return network


def network_source(model: str) -> Any:
    """Import network.py of models/`model` and return it, or the name of the class of transformers in its spec.

    Without either it is None: one of the model's sources is the network. Raises SpecError if there are both, and if one
    cannot be loaded.
    """
    name, path = load_spec(model).transformers, MODELS / model / "network.py"
    if name is None:
        return load_module(model, "network", ("build",)) if path.is_file() else None
    if path.is_file():
        raise SpecError(
            f"models/{model} has a network.py and `transformers` in spec.yaml: remove network.py if {name} is the "
            "network, else `transformers`"
        )
    pretrained_class(name)
    return name


def build_network(module: Any, model: str, raw: Path) -> torch.nn.Module:
    """Call build() of network.py, and take the network out of its wrappers.

    Raises NetworkError if it fails or does not return a torch module.
    """
    try:
        network = module.build(raw)
    except ReleaseError:
        raise
    except Exception as cause:  # a model's code may raise anything
        raise NetworkError(
            f"build() in models/{model}/network.py fails at {place_of(cause, model)}: {reason_of(cause)}"
        ) from cause
    if not isinstance(network, torch.nn.Module):
        raise NetworkError(f"build() in models/{model}/network.py returns {type(network).__name__}, not a torch module")
    network = unwrapped(network)
    return as_module(network) if isinstance(network, torch.jit.ScriptModule) else network


def in_order_of_spec(spec: Spec, result: Any) -> Any:
    """Return the declared outputs as a tuple in the order of the spec; a result that is just that stays as it is.

    Raises NetworkError as `take_outputs` does.
    """
    names = [tensor.name for tensor in spec.outputs]
    values = [result] if isinstance(result, torch.Tensor) else result
    plain = type(values) in (tuple, list) and all(isinstance(value, torch.Tensor) for value in values)
    if plain and len(values) == len(names) and not any(name.isdigit() for name in names):
        return result
    return take_outputs(result, names)


def refuse_sparse(network: torch.nn.Module) -> None:
    """Raise NetworkError if a weight or a buffer is not dense: ONNX Runtime has no operators for such tensors."""
    named = [*network.named_parameters(), *network.named_buffers()]
    sparse = [f"{name} ({tensor.layout})" for name, tensor in named if tensor.layout is not torch.strided]
    if sparse:
        raise NetworkError(
            f"not dense: {first_few(sparse, 3)}. ONNX Runtime computes with dense tensors: let build() put .to_dense() "
            "of each in its place, and multiply by it with @ in the place of torch.sparse.mm()"
        )


def refuse_training(network: torch.nn.Module) -> None:
    """Raise NetworkError if any module is in training mode, where dropout and batch norm change the answers."""
    training = in_training(network)
    if training:
        raise NetworkError(f"in training mode: {first_few(training, 3)}. End build() with `return network.eval()`")


def in_training(network: torch.nn.Module) -> list[str]:
    """Return the names of the modules in training mode, each with its class."""
    return [
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if module.training
    ]


def run_network(
    network: torch.nn.Module, spec: Spec, inputs: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float32
) -> dict[str, np.ndarray]:
    """Run the network and return its outputs by their declared names; inputs go in by position, in the spec's order.

    Outputs are taken as by `onnx_release.network.outputs.take_outputs`. In float64 floating-point inputs are cast to
    it; else all have their declared dtypes, as in the ONNX file. Raises NetworkError if the network fails, for other
    outputs than declared, and for NaN. Infinity is an answer, as of a masked score.
    """
    # Copies, since a network may change its inputs in place.
    tensors = [torch.from_numpy(np.array(inputs[tensor.name], order="C")) for tensor in spec.inputs]
    try:
        # Not inference_mode: what a network keeps of such a run could not be changed in place in the next one.
        with torch.no_grad(), eager_operators():
            wide = dtype is torch.float64
            result = network(*(item.to(dtype) if wide and item.is_floating_point() else item for item in tensors))
    except ReleaseError:
        raise
    except Exception as cause:  # a model's code may raise anything
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        kind = str(dtype).removeprefix("torch.")
        raise NetworkError(
            f"the network fails in {kind} on {shapes}: {reason_of(cause)}\n"
            "It must run at every declared size. Where values must follow the sizes, as lengths and masks must, "
            "examples(sizes) in data.py returns such inputs: docs/bring-your-own-model.md has one. A part of an "
            "argument that is a dict or a tuple is an input of its own, named by its path: batch.image"
        ) from cause
    result = in_order_of_spec(spec, result)
    values = [result] if isinstance(result, torch.Tensor) else list(result)
    outputs = {tensor.name: array_of(value) for tensor, value in zip(spec.outputs, values, strict=True)}
    for name, array in outputs.items():
        bad = int(np.isnan(array).sum())
        if bad:
            raise NetworkError(
                f"{bad} of the {array.size} values of the output {name} are NaN in {array.dtype}: "
                "look at the weights and at the inputs from data.py"
            )
    return outputs


def check_outputs(spec: Spec, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    """Raise NetworkError if the float32 `outputs` for `inputs` contradict the spec's dtypes or shapes."""
    sizes: dict[str, int] = {}
    check_inputs(spec, inputs, sizes)
    for tensor in spec.outputs:
        array = outputs[tensor.name]
        problem = check_array(tensor, str(array.dtype), array.shape, sizes)
        if problem:
            cast = CASTS.get(str(array.dtype))
            advice = f": let forward() return it in {cast[0]}, with {cast[1]}" if cast else ""
            raise NetworkError(f"the network contradicts spec.yaml: {problem}{advice}")
