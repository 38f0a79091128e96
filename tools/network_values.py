"""Read a network that a person names, and say what the files of its model's folder must have."""

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.imports import OWN_PACKAGES, imported_names
from onnx_release.network.discover import Discovery, FoundTensor, discover
from onnx_release.network.input_dimensions import BATCH, InputDimension
from onnx_release.network.named_network import NamedNetwork, open_network
from onnx_release.network.opened_files import opened_files
from onnx_release.network.outputs import OUT

# Operators whose weights int8_dynamic makes smaller.
PRODUCTS = (torch.nn.Linear, torch.nn.RNNBase)


@dataclass(frozen=True)
class ReadNetwork:
    """A network's task, what its templates take, the files that it is loaded from, and code to copy beside it."""

    task: str
    values: dict[str, Any]
    files: tuple[Path, ...]
    code: dict[str, str]


def read_network(text: str, inputs: Sequence[str], name: str, task: str | None) -> ReadNetwork:
    """Build the network that `text` names, run it, and return what models/`name`/ must say about it.

    Raises what `open_network` and `discover` raise.
    """
    with opened_files() as opened:
        named = open_network(text, inputs)
    discovery = discover(named.network, named.arguments)
    task = task or named.task or "tensor"
    files = named.files or tuple(opened)
    code, module = own_code(named, name)
    batched = any(dimension.name == BATCH for dimension in discovery.dimensions)
    # It takes one item at a time, with a first axis of 1.
    fixed = not batched and all(tensor.shape[:1] == (1,) for tensor in discovery.inputs)
    found = {
        "kind": named.kind,
        "reference": named.reference,
        "module": module,
        "function": named.reference.rpartition(":")[2],
        "pair": named.pair,
        "called": named.called,
        "copied": bool(code),
        "reads": [path.name for path in opened] if not named.files else [],
        "guessed": named.guessed,
        "task_known": bool(named.task),
        "dynamic": mostly_products(named.network),
        "settings": image_settings(named),
        "inputs": [tensor_values(tensor) for tensor in discovery.inputs],
        "outputs": output_values(discovery, task),
        "dimensions": [dimension_values(item) for item in discovery.dimensions],
        "derived": dict(discovery.derived),
        "fixed": [dimension_values(item) for item in discovery.fixed],
        "without_batch": not batched and not fixed,
        "random": [random_values(tensor, fixed) for tensor in discovery.inputs],
    }
    return ReadNetwork(task, found, files, code)


def own_code(named: NamedNetwork, name: str) -> tuple[dict[str, str], str]:
    """Return the module of the function to copy into the model's folder, by file name, and the module to import.

    It is copied if it is one file that needs no other beside it. DVC then sees its changes.
    """
    module = named.reference.rpartition(":")[0]
    found = importlib.util.find_spec(module) if named.kind == "function" else None
    if found is None or not found.origin or not found.origin.endswith(".py") or "." in module:
        return {}, module
    path = Path(found.origin)
    text = path.read_text(encoding="utf-8")
    beside = [item for item in imported_names(path.name, path.parent) if (path.parent / item.split(".")[0]).exists()]
    beside += [item for item in imported_names(path.name, path.parent) if (path.parent / f"{item}.py").is_file()]
    alone = not [item for item in beside if item.split(".")[0] not in OWN_PACKAGES]
    if not alone or "__file__" in text or path.name == "__init__.py" or "site-packages" in path.parts:
        return {}, module
    file = f"{module}.py" if module not in ("network", "data") else f"{module}_code.py"
    return {file: text}, f"models.{name}.{Path(file).stem}"


def tensor_values(tensor: FoundTensor) -> dict[str, Any]:
    """Return a tensor as an entry of the spec."""
    return {"name": quoted(tensor.name), "dtype": tensor.dtype, "shape": list(tensor.shape)}


def quoted(name: str) -> str:
    """Return a name as YAML has it: in quotes if it could be read as something else than text."""
    return name if re.fullmatch(r"[A-Za-z_][\w.]*", name) and name.lower() not in YAML_WORDS else json.dumps(name)


YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def output_values(discovery: Discovery, task: str) -> list[dict[str, Any]]:
    """Return the outputs as entries of the spec; those of a plain tensor or tuple get a name, which is marked."""
    names = [tensor.name for tensor in discovery.outputs]
    plain = all(not name or name.isdigit() for name in names)
    usual = {"classification": "logits", "embedding": "embedding"}.get(task, "output")
    taken = {tensor.name for tensor in discovery.inputs}
    values = []
    for tensor in discovery.outputs:
        name = tensor.name
        if plain:
            name = usual if not name or (name == "0" and usual != "output") else f"output_{name}"
        name = name if name not in taken else f"{name}{OUT}"
        values.append({**tensor_values(tensor), "name": quoted(name), "made_up": plain})
    return values


def dimension_values(dimension: InputDimension) -> dict[str, Any]:
    """Return a dimension as an entry of the spec, with the sizes of random samples."""
    step = dimension.step
    return {
        "name": dimension.name,
        "min": dimension.smallest,
        "max": dimension.largest,
        "example": dimension.example,
        "step": step,
        "batch": dimension.name == BATCH,
        "low": -(-dimension.smallest // step),
        "high": dimension.example // step,
    }


def random_values(tensor: FoundTensor, fixed: bool) -> dict[str, str]:
    """Return the name of an input, and code that makes one item of it with values like those of the example.

    The item is without the batch axis, which is the first one if the batch is `fixed`.
    """
    sizes = [str(size) for size in tensor.shape[int(fixed) :] if size != BATCH]
    shape = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    return {"name": json.dumps(tensor.name), "code": random_code(tensor.example, shape, f"np.{numpy_dtype(tensor)}")}


def random_code(example: torch.Tensor, shape: str, dtype: str) -> str:
    """Return code that makes an array of this shape and dtype with values like the finite ones of the example."""
    example = example[example.isfinite()]  # a mask of 0 and -inf hides nothing: the network then runs at any size
    low, high = (example.min(), example.max()) if example.numel() else (torch.tensor(0), torch.tensor(0))
    if low == high:
        return f"np.full({shape}, {low.item()}, {dtype})"
    if example.dtype is torch.bool:
        return f"random.random({shape}) < 0.5"
    if not example.is_floating_point():
        return f"random.integers({low.item()}, {high.item() + 1}, {shape}, {dtype})"
    if low >= 0 and high <= 1:
        return f"random.random({shape}).astype({dtype})"
    mean, deviation = float(example.double().mean()), float(example.double().std())
    if abs(mean) < 0.2 and abs(deviation - 1) < 0.2:
        return f"random.standard_normal({shape}).astype({dtype})"
    return f"random.normal({mean:.3g}, {deviation:.3g}, {shape}).astype({dtype})"


def numpy_dtype(tensor: FoundTensor) -> str:
    """Return the name of the dtype in NumPy."""
    return "bool_" if tensor.dtype == "bool" else tensor.dtype


def mostly_products(network: torch.nn.Module) -> bool:
    """Return whether more weights are in matrix products than in all else, so that int8_dynamic makes sense."""
    weights = sum(weight.numel() for weight in network.parameters())
    products = [layer for layer in network.modules() if isinstance(layer, PRODUCTS)]
    inside = sum(weight.numel() for layer in products for weight in layer.parameters())
    return 2 * inside > weights


def image_settings(named: NamedNetwork) -> dict[str, Any]:
    """Return how pictures are prepared for a network of timm, as `images` of the spec has it; nothing for another."""
    settings = named.settings
    if not settings:
        return {}
    crop = settings["input_size"][-1]
    interpolation = settings.get("interpolation", "bilinear")
    return {
        "resize": int(crop / settings.get("crop_pct", 0.875)),
        "crop": crop,
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else "bilinear",
        "mean": list(settings["mean"]),
        "std": list(settings["std"]),
    }
