"""Releases of small models whose answers are known by hand, packaged with the real server."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import SHIPPABLE
from tests.imports import ROOT
from tests.release_project import make_project, make_release, write_results

COLOURS = """
task: classification
sources: [{name: colours, sha256: SHA, from: {path: colours}}]
images: {folder: colours, resize: 8, crop: 8, mean: [0, 0, 0], std: [1, 1, 1], classes: [red, green, blue]}
dimensions:
  batch: {min: 1, max: 4, example: 2}
inputs:
  - {name: input, dtype: float32, shape: [batch, 3, 8, 8]}
outputs:
  - {name: logits, dtype: float32, shape: [batch, 3]}
variants: [fp16, int8_dynamic, int8_static]
budget: {agreement: 0.5}
"""
SPOTS = """
task: detection
sources: []
labels: [nothing, spot]
dimensions:
  batch: {min: 1, max: 4, example: 2}
  height: {min: 8, max: 64, example: 16}
  width: {min: 8, max: 64, example: 16}
inputs:
  - {name: input, dtype: float32, shape: [batch, 3, height, width]}
outputs:
  - {name: light, dtype: float32, shape: [batch, 3, height, width]}
variants: [fp16, int8_dynamic, int8_static]
budget: {sqnr_db: 10}
"""
SPOTS_DATA = '''
import numpy as np
from PIL import Image

from onnx_release.data.images import decode_image
from onnx_release.core.types import Detections

def samples(raw, split):
    yield from ()

def decode(content: bytes) -> np.ndarray:
    return decode_image(content)

def preprocess(item):
    image = Image.fromarray(item).resize((32, 16), Image.Resampling.NEAREST)
    return {"input": np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)}

def postprocess(outputs):
    """The box round all that is lit."""
    rows, columns = np.nonzero(outputs["light"].max(0) > 0.5)
    found = len(rows) > 0
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if found else []
    count = int(found)
    return Detections(np.array(box, np.float32).reshape(-1, 4), np.ones(count, np.float32), np.ones(count, np.int64))
'''


LENGTHS = """
task: embedding
sources: []
dimensions:
  batch: {min: 1, max: 4, example: 2}
  length: {min: 1, max: 32, example: 8}
inputs:
  - {name: codes, dtype: int64, shape: [batch, length]}
outputs:
  - {name: sums, dtype: int64, shape: [batch, 1]}
variants: [fp16, int8_dynamic, int8_static]
budget: {sqnr_db: 10}
"""
LENGTHS_DATA = """
import numpy as np

from onnx_release.core.types import Embedding

def samples(raw, split):
    yield from ()

def decode(content: bytes) -> str:
    return content.decode()

def preprocess(item):
    return {"codes": np.array([ord(sign) for sign in item], np.int64)}

def postprocess(outputs):
    return Embedding(outputs["sums"].astype(np.float32))
"""


def lengths_release(folder: Path) -> Path:
    """A model of texts: the sum of their characters' numbers."""
    return texts_release(folder, LENGTHS_DATA)


def texts_release(folder: Path, data: str) -> Path:
    nodes = [helper.make_node("ReduceSum", ["codes", "axes"], ["sums"], keepdims=1)]
    integer = TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "lengths",
        [helper.make_tensor_value_info("codes", integer, ["batch", "length"])],
        [helper.make_tensor_value_info("sums", integer, ["batch", 1])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    return packaged(folder, "lengths", LENGTHS, graph, data)


OBEDIENT_DATA = """
import os
import signal
import time

import numpy as np

from onnx_release.core.types import Embedding

def samples(raw, split):
    yield from ()

def decode(content: bytes) -> str:
    order = content.decode()
    match order:
        case "take memory":
            np.ones(2_000_000_000, np.uint8)
        case "take time":
            while True:
                pass
        case "take 0.3 seconds" | "take 0.35 seconds" | "take 0.7 seconds":
            end = time.process_time() + float(order.split()[1])
            while time.process_time() < end:
                pass
        case "wait":
            time.sleep(1000)
        case "refuse":
            raise ValueError("no such order")
        case "fail":
            raise RuntimeError("the model's code is wrong")
        case "end":
            os._exit(3)
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
    return order

def preprocess(item):
    length = {"give a large array": 1_000_000, "give a long array": 12_500}.get(item, len(item))
    return {"numbers" if item == "give another name" else "codes": np.ones(length, np.int64)}

def postprocess(outputs):
    return Embedding(outputs["sums"].astype(np.float32))
"""


def obedient_release(folder: Path) -> Path:
    """A model of texts, the sum of their lengths, whose data.py does what the text says."""
    return texts_release(folder, OBEDIENT_DATA)


def colours_release(folder: Path) -> Path:
    """Which colour a picture has most of: the logits are ten times the means of the channels."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "ten"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array(10, np.float32), "ten"),
    ]
    graph = helper.make_graph(nodes, "colours", [value("input", 3, 8, 8)], [value("logits", 3)], constants)
    return packaged(folder, "colours", COLOURS.replace("SHA", "a" * 64), graph)


def spots_release(folder: Path) -> Path:
    """A detector of what is lit, on pictures that it makes 32 pixels wide and 16 high."""
    axes: tuple[int | str, ...] = (3, "height", "width")
    node = helper.make_node("Identity", ["input"], ["light"])
    graph = helper.make_graph([node], "spots", [value("input", *axes)], [value("light", *axes)])
    return packaged(folder, "spots", SPOTS, graph, SPOTS_DATA)


def value(name: str, *axes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])


def packaged(folder: Path, model: str, spec: str, graph: onnx.GraphProto, data: str | None = None) -> Path:
    """The folder of a release of `graph`, whose variants are all the same."""
    with_server(folder)
    write_text(folder / f"models/{model}/spec.yaml", spec)
    if data is not None:
        write_text(folder / f"models/{model}/data.py", data)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    write_results(folder, model)
    for variant in SHIPPABLE:
        path = folder / ModelFiles(model).variant(variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save_model(made, path)
    return make_release(folder, model=model)


def digits_release(folder: Path) -> Path:
    """digits_cnn, whose data.py takes no uploads."""
    with_server(folder)
    return make_release(folder)


def with_server(folder: Path) -> None:
    """A project with the server as it is here."""
    make_project(folder)
    shutil.rmtree(folder / "serving")
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
