"""Compare static INT8 of a vision transformer with onnxruntime's quantizer, weights only and float outputs.

    python -m benchmarks.vit_tiny

writes benchmarks/vit_tiny.json, in about five minutes. The network has the shape of ViT-tiny (patches of 16, width 192,
12 blocks of 3 heads, 224 by 224 pixels) and random weights. Both calibrate on the same random images; SQNR in dB is on
other ones, against the float32 model.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxslim
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from torch import nn
from torch.nn import functional

from benchmarks.calibration import Reader
from onnx_release.core.command import run_tool
from onnx_release.core.files import write_json
from onnx_release.core.hardware import describe_hardware, machine_name
from onnx_release.core.params import load_defaults
from onnx_release.core.paths import MODEL_FILE, RANGES_FILE
from onnx_release.core.spec import Budget, Spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import SampleFile, write_samples
from onnx_release.graph.graph import load_model, save_model
from onnx_release.graph.targets import TARGETS
from onnx_release.reduce.calibrate import calibrate
from onnx_release.static_quantization.quantize_static import quantize_statically
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Goal

RESULT = Path("benchmarks/vit_tiny.json")
SIZE, PATCH, WIDTH, BLOCKS, HEADS, CLASSES = 224, 16, 192, 12, 3, 1000
SAMPLES = 24
MINUTES = 1
PRODUCTS = ["Conv", "Gemm", "MatMul"]
SPEC = Spec.model_validate(
    {
        **{"task": "tensor", "sources": [], "variants": ["int8_static"], "budget": {"sqnr_db": 20}},
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, SIZE, SIZE]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", CLASSES]}],
    }
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.expand, self.shrink = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        split = self.qkv(self.before(x)).reshape(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*split.unbind(0))
        x = x + self.project(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.shrink(functional.gelu(self.expand(self.between(x))))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.patches(x).flatten(2).transpose(1, 2)
        found = torch.cat([self.first.expand(len(x), -1, -1), found], 1) + self.places
        return torch.as_tensor(self.head(self.norm(self.blocks(found))[:, 0]))


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = export(folder)
        own, others = write_images(folder / "own.npz", 0), write_images(folder / "others.npz", 1)
        by_own, by_others = (Scorer(source, SPEC, None, samples) for samples in (own, others))
        calibrate(source, SPEC, own, load_defaults().calibrate, folder / "calibration")
        calibration, goal = folder / "calibration", Goal(Budget(sqnr_db=20), MINUTES)
        arguments = calibration / MODEL_FILE, calibration / RANGES_FILE, TARGETS["vnni"], by_own, goal
        quantize_statically(*arguments, folder / "int8")
        quantize_static(
            source,
            folder / "theirs.onnx",
            Reader(own, range(SAMPLES)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": PRODUCTS},
        )
        files = {"int8_static": folder / "int8" / MODEL_FILE, "onnxruntime": folder / "theirs.onnx"}
        found = {key: by_others.score(load_model(path), range(SAMPLES)).signal for key, path in files.items()}
    write_json(RESULT, {"machine": machine_name(describe_hardware()), "minutes": MINUTES, "sqnr_db": found})
    print(found)


def export(folder: Path) -> Path:
    """Write the network as an ONNX file, slimmed."""
    torch.manual_seed(0)
    network, raw = VisionTransformer().eval(), folder / "raw.onnx"
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    torch.onnx.export(network, example, raw, dynamo=True, dynamic_shapes=shapes, opset_version=18, **names)
    return save_model(onnxslim.slim(str(raw)), folder)


def write_images(path: Path, seed: int) -> SampleFile:
    """Write random images."""

    def images() -> Iterator[Sample]:
        random = np.random.default_rng(seed)
        for _ in range(SAMPLES):
            yield Sample({"x": random.standard_normal((3, SIZE, SIZE)).astype(np.float32)})

    write_samples(path, images(), SAMPLES, SPEC)
    return SampleFile(path)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
