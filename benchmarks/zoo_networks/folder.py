"""Write the model folder of a network of the zoo: spec.yaml, network.py and data.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.zoo_networks.building import build, named_outputs, run
from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.declaration import Network, Sizes
from benchmarks.zoo_networks.sizes import size_cases

SAMPLES = 24
BUDGET = {"sqnr_db": 20}
NETWORK = '''"""Build {name} of the zoo."""

from pathlib import Path

import torch

from benchmarks.zoo_networks.building import build as build_network


def build(raw: Path) -> torch.nn.Module:
    return build_network("{name}")
'''
DATA = '''"""Draw samples for {name} of the zoo."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.zoo_networks.catalogue import NETWORKS
from onnx_release.core.types import Sample


def samples(raw: Path, split: str) -> Iterator[Sample]:
    first = 1000 if split == "calibration" else 2000
    for number in range({samples}):
        yield Sample(NETWORKS["{name}"].sample(first + number))


def examples(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    return NETWORKS["{name}"].following(sizes)


def preprocess(item: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return item
'''


def write_folder(name: str, folder: Path) -> None:
    """Write the model folder of the network called `name`, which is built and run at all its size cases for this."""
    spec = spec_of(NETWORKS[name])
    folder.mkdir(parents=True)
    with (folder / "spec.yaml").open("w") as file:
        YAML().dump(spec, file)
    (folder / "network.py").write_text(NETWORK.format(name=name))
    (folder / "data.py").write_text(DATA.format(name=name, samples=SAMPLES))


def spec_of(declared: Network) -> dict[str, Any]:
    """Return the content of spec.yaml; the outputs' shapes are read off the network's runs."""
    network = build(declared.name)
    shapes: list[tuple[Sizes, dict[str, tuple[int, ...]]]] = []
    dtypes = {}
    for number, sizes in enumerate(size_cases(declared)):
        outputs = named_outputs(declared, run(network, declared.draw(sizes, number)))
        shapes.append((sizes, {name: tuple(tensor.shape) for name, tensor in outputs.items()}))
        dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in outputs.items()}
    derived: dict[tuple[int, ...], str] = {}
    written = [
        {"name": name, "dtype": dtypes[name], "shape": named_shape(name, shapes, derived)} for name in shapes[0][1]
    ]
    bounds = {name: written_size(vars(size)) for name, size in declared.sizes.items()}
    return {
        "task": "tensor",
        "sources": [],
        "dimensions": bounds,
        **({"derived": list(derived.values())} if derived else {}),
        "inputs": [{"name": k, "dtype": v.dtype, "shape": list(v.shape)} for k, v in declared.inputs.items()],
        "outputs": written,
        "variants": ["fp16", "int8_dynamic", "int8_static"],
        "budget": BUDGET,
    }


def written_size(size: Mapping[str, int]) -> dict[str, int]:
    """Return the bounds as spec.yaml has them: the step is left out where it is 1."""
    return {key: value for key, value in size.items() if key != "multiple_of" or value != 1}


def named_shape(
    name: str, shapes: list[tuple[Sizes, dict[str, tuple[int, ...]]]], derived: dict[tuple[int, ...], str]
) -> list[int | str]:
    """Return each axis of an output: a number, the input's size that it always is, or a derived size of its own."""
    shape: list[int | str] = []
    for axis in range(len(shapes[0][1][name])):
        seen = tuple(found[name][axis] for _, found in shapes)
        same = [known for known in shapes[0][0] if seen == tuple(sizes[known] for sizes, _ in shapes)]
        if len(set(seen)) == 1:
            shape.append(seen[0])
        else:
            shape.append(same[0] if same else derived.setdefault(seen, f"derived_{len(derived)}"))
    return shape
