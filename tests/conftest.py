"""What several test files share: tiny ONNX files, tiny specs, and the digits."""

import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_release.core.hardware import available_cores
from onnx_release.core.spec import Spec, load_spec
from onnx_release.data.fetch import fetch_sources
from tests.imports import ROOT

# In the background of a shell Ctrl-C is ignored, and would be by everything that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The processes of the tests share the cores: threads of torch that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# New objects after which a process of the tests looks for garbage.
GARBAGE = 20_000

# The rooms whose files take longest, in this order.
LONGEST = ("pipeline", "sweep", "serving", "tools", "static_quantization", "export")

# A name with its shape (of float32), or with an element type and its shape.
Value = tuple[str, Sequence[int | str]] | tuple[str, int, Sequence[int | str]]


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores, since tests of sweeps and servers wait for other processes."""
    return available_cores() + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while the tests are collected: this imports the library and all that it uses, which stays.

    Look for it more seldom after that than Python does by itself.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(GARBAGE)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the rooms whose files take longest first: at the end one worker would wait for the others."""
    rank = {room: number for number, room in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("/")[1], len(rank)))


@pytest.fixture(scope="session", autouse=True)
def operators_are_listed_once() -> Iterator[None]:
    """Keep what torch lists anew for every export: torch.onnx's table of operators, in a second, and torch's own."""
    from torch._export import utils  # not in the process that only hands out tests
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        patch.setattr(utils, "_materialize_cpp_cia_ops", functools.cache(utils._materialize_cpp_cia_ops))
        yield


@pytest.fixture
def save_graph(tmp_path: Path) -> Callable[..., Path]:
    """Write a graph to `tmp_path`/NAME, unchecked, and give its path."""

    def save(
        nodes: list[NodeProto],
        inputs: list[Value],
        outputs: list[Value],
        weights: Mapping[str, np.ndarray] | None = None,
        name: str = "model.onnx",
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [described(value) for value in inputs],
            [described(value) for value in outputs],
            [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        domains = {"": 18, **{node.domain: 1 for node in nodes if node.domain}}
        opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return save


def described(value: Value) -> onnx.ValueInfoProto:
    name, element, shape = value if len(value) == 3 else (value[0], TensorProto.FLOAT, value[1])
    return helper.make_tensor_value_info(name, element, shape)


@pytest.fixture
def make_spec() -> Callable[..., Spec]:
    """A spec of float32 tensors: inputs and outputs as shapes by name, dimensions as (min, max, example) by name."""

    def make(
        inputs: dict[str, list[int | str]],
        outputs: dict[str, list[int | str]],
        task: str = "tensor",
        **dimensions: tuple[int, int, int],
    ) -> Spec:
        return Spec.model_validate(
            {
                "task": task,
                "sources": [],
                "variants": [],
                "dimensions": {
                    name: {"min": low, "max": high, "example": example}
                    for name, (low, high, example) in dimensions.items()
                },
                "inputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in inputs.items()],
                "outputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in outputs.items()],
            }
        )

    return make


@pytest.fixture(scope="session")
def digits_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of digits_cnn, fetched as the pipeline does."""
    folder = tmp_path_factory.mktemp("raw") / "digits_cnn"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        fetch_sources("digits_cnn", load_spec("digits_cnn").sources, folder)
    return folder
