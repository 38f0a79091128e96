"""Measure what each step of the static quantization is worth, and steps that were tried and left out.

    python -m benchmarks.ablation

writes benchmarks/ablation.json, from which docs/quantization.md has its tables: SQNR in dB compared with the float32
model, by row and target. Everything is fitted to crops of four of the calibration photographs and tested on crops of
the other three, so that no evaluation photograph decides what the pipeline does. The targets' arithmetic is the same on
any x86 CPU with VNNI. Needs a finished `make repro MODEL=mobilenet_v2`. Takes about twelve minutes on 2 cores, half of
them in AdaRound.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from onnx import ModelProto
from threadpoolctl import threadpool_limits

from benchmarks.onnxruntime_quantizer import run_quantizer
from onnx_release.core.command import run_tool
from onnx_release.core.files import write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget, load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, spread_evenly, write_samples
from onnx_release.graph.layers import weighted_layers
from onnx_release.graph.targets import TARGETS, Target
from onnx_release.reduce import equalize
from onnx_release.reduce.calibrate import find_ranges
from onnx_release.static_quantization import operators, qdq, refine, rounding
from onnx_release.static_quantization.compute_limit import ComputeLimit, measure_work
from onnx_release.static_quantization.gptq import Limits, search_scales
from onnx_release.static_quantization.operators import Ranges
from onnx_release.static_quantization.qdq import insert_qdq, with_float_layers
from onnx_release.static_quantization.refine import factor_bounds, refine_ranges
from onnx_release.static_quantization.rounding import Fit, fit_weights
from onnx_release.static_quantization.saturation import HALVED
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import FEW_SAMPLES, Goal, scale_ranges, search

RESULT = Path("benchmarks/ablation.json")
FILES = ModelFiles("mobilenet_v2")
FITTED = ("astronaut", "china", "coffee", "rocket")
SAMPLES = 92
CHUNK = 16

# A change of the library during one trial: an object, its attribute, and another value.
LibraryChange = tuple[Any, str, Any]
VNNI, AVX2 = TARGETS["vnni"], TARGETS["avx2"]


class Bench:
    """The samples to fit to, a scorer on them, and a scorer on the other samples."""

    def __init__(self, folder: Path) -> None:
        spec, data, source = load_spec(FILES.model), load_data(FILES.model), FILES.variant("fp32")
        scorers = []
        for name, chosen in (("fit", True), ("scorer", False)):
            every = data.samples(FILES.raw, "calibration")
            samples = (sample for sample in every if (sample.group in FITTED) == chosen)
            write_samples(folder / f"{name}.npz", samples, SAMPLES, spec)
            scorers.append(Scorer(source, spec, data, SampleFile(folder / f"{name}.npz")))
        self.own, self.others = scorers
        self.samples, self.source = self.own.samples, onnx.load(source)

    def sqnr_db(self, model: ModelProto) -> float:
        return self.others.score(model, range(SAMPLES)).signal

    def calibrated(self, equalized: bool = True, **settings: Any) -> tuple[ModelProto, Ranges]:
        model = equalize.equalize_on(self.source, self.samples, CHUNK).model if equalized else self.source
        return model, find_ranges(model, self.samples, load_params(FILES).calibrate.model_copy(update=settings))[0]

    def fitted(self, model: ModelProto, ranges: Ranges, target: Target) -> ModelProto:
        quantized = insert_qdq(model, ranges, target, [])
        fit_weights(model, quantized, ranges, target, Fit(self.samples, range(SAMPLES)))
        return quantized

    def swept(self, model: ModelProto, ranges: Ranges, target: Target) -> ModelProto:
        """Fit, refine the ranges once, and fit again."""
        work = ComputeLimit(float("inf"), measure_work(model, ranges, self.samples).macs)
        first = self.fitted(model, ranges, target)
        sweep = refine.Sweep(refine.COARSE, spread_evenly(SAMPLES, FEW_SAMPLES))
        factors = refine_ranges(first, factor_bounds(model, ranges), sweep, self.own, work)
        return self.fitted(model, scale_ranges(ranges, factors), target)


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        bench = Bench(Path(folder))
        result = {
            "steps": [{"name": name, **step(bench)} for name, step in STEPS.items()],
            "left_out": [{"name": name, **trial(bench)} for name, trial in TRIED_STEPS.items()],
            "methods": [{"name": name, **method(bench, **settings)} for name, settings in METHODS.items()],
            "float_layers": float_layers(bench),
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def rounded_by_onnxruntime(bench: Bench) -> dict[str, float]:
    model, ranges = bench.calibrated(equalized=False)
    return {target.name: bench.sqnr_db(run_quantizer(model, ranges, target, [])) for target in (VNNI, AVX2)}


def changed(
    bench: Bench,
    changes: Sequence[LibraryChange] = (),
    equalized: bool = True,
    sweep: bool = False,
    targets: Sequence[Target] = (VNNI, AVX2),
) -> dict[str, float]:
    """Fit like the pipeline, and refine the ranges once with `sweep`, with these changes of the library."""
    with ExitStack() as stack:
        for place, name, value in changes:
            stack.enter_context(patch.object(place, name, value))
        model, ranges = bench.calibrated(equalized)
        make = bench.swept if sweep else bench.fitted
        return {target.name: bench.sqnr_db(make(model, ranges, target)) for target in targets}


def searched(bench: Bench) -> dict[str, float]:
    """Run the whole search at the default minutes."""
    model, ranges = bench.calibrated()
    budget, minutes = Budget(sqnr_db=0.0), load_params(FILES).quantize_static.minutes
    return {
        target.name: bench.sqnr_db(search(model, ranges, target, bench.own, Goal(budget, minutes)).best.model)
        for target in (VNNI, AVX2)
    }


def method(bench: Bench, **settings: Any) -> dict[str, float]:
    """Calibrate with a method, and fit with its ranges as they are, and refined once, for VNNI."""
    model, ranges = bench.calibrated(**settings)
    return {
        "as calibrated": bench.sqnr_db(bench.fitted(model, ranges, VNNI)),
        "refined": bench.sqnr_db(bench.swept(model, ranges, VNNI)),
    }


def float_layers(bench: Bench) -> dict[str, float]:
    """Quantize only activations: as ONNX Runtime loads such a graph by default, and with weights kept in float."""
    model, ranges = bench.calibrated(equalized=False)
    quantized, names = insert_qdq(model, ranges, VNNI, []), [layer.name for layer in weighted_layers(model)]
    with patch.object(qdq, "keep_float", lambda _: None):
        alone = bench.sqnr_db(with_float_layers(quantized, model, names))
    return {"quantized when loaded": alone, "kept in float": bench.sqnr_db(with_float_layers(quantized, model, names))}


def nearest(weights: np.ndarray, _: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Round every weight by itself, to half the range if pairs are bounded."""
    most = limits.most if limits.partner is None else HALVED
    scales = np.abs(weights).max(axis=2) / most
    scales[scales == 0] = 1.0
    return np.rint(weights / scales[..., None]).astype(np.int8), scales


def adaround(weights: np.ndarray, covariance: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Round up or down by gradient descent on the same error as GPTQ's.

    Source: Nagel et al., Up or Down?, 2020, arXiv 2004.10568: its stretched sigmoid, and its regularizer, whose
    exponent falls from 20 to 2 after the first fifth; 1,000 steps of Adam at 0.01, a tenth of the paper's.
    """
    steps, warm_up = 1000, 200
    scales = search_scales(weights, covariance, limits)
    unit = torch.tensor(scales[..., None], dtype=torch.float32)
    real = (torch.tensor(weights, dtype=torch.float32) / unit).clamp(-limits.most, limits.most)
    product = torch.tensor(covariance, dtype=torch.float32)

    def error(found: torch.Tensor) -> torch.Tensor:
        difference = (real - found) * unit
        return ((difference @ product) * difference).sum()

    whole, below = float(error(real.round())) + 1e-20, real.floor()
    share = ((real - below + 0.1) / 1.2).clamp(1e-4, 1 - 1e-4)
    variable = torch.log(share / (1 - share)).requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=0.01)
    for step in range(steps):
        up = (torch.sigmoid(variable) * 1.2 - 0.1).clamp(0, 1)
        loss = error(below + up) / whole
        if step > warm_up:
            exponent = 20 - 18 * (step - warm_up) / (steps - warm_up)
            loss = loss + (1 - (2 * up - 1).abs() ** exponent).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    integers = (below + (torch.sigmoid(variable) >= 0.5)).clamp(-limits.most, limits.most)
    return integers.numpy().astype(np.int8), scales


NEAREST: LibraryChange = (rounding, "round_layer", nearest)
LINEAR_ONLY: LibraryChange = (equalize, "bounded_groups", lambda _: [])

STEPS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "onnxruntime's rounding": rounded_by_onnxruntime,
    "answers in float, biases corrected; avx2: depthwise weights in full": partial(
        changed, changes=[NEAREST], equalized=False
    ),
    "GPTQ with searched scales": partial(changed, equalized=False),
    "linear values equalized": partial(changed, changes=[LINEAR_ONLY]),
    "values behind ReLU6 equalized": changed,
    "ranges refined once": partial(changed, sweep=True),
    "the whole search": searched,
}
TRIED_STEPS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "other positions drawn, which is chance": partial(changed, changes=[(rounding, "POSITIONS", 127)]),
    "AdaRound in place of GPTQ": partial(changed, changes=[(rounding, "round_layer", adaround)], targets=(VNNI,)),
    "every weight halved in place of bounded pairs": partial(
        changed, changes=[(rounding, "weight_limits", lambda *_: Limits(HALVED))], targets=(AVX2,)
    ),
    "equalized with strength 0.25": partial(changed, changes=[(equalize, "STRENGTH", 0.25)]),
    "equalized with strength 1": partial(changed, changes=[(equalize, "STRENGTH", 1.0)]),
    "no headroom behind ReLU6": partial(changed, changes=[(equalize, "HEADROOM", 1.0)]),
    "answers in 8 bits": partial(changed, changes=[(operators, "FLOAT_OUTPUT", ())]),
    "ranges refined without halving": partial(changed, changes=[(refine, "COARSE", (0.8, 1.25))], sweep=True),
    "ranges refined in steps of 0.7": partial(changed, changes=[(refine, "COARSE", (0.7, 1.4))], sweep=True),
}
METHODS: dict[str, dict[str, Any]] = {
    "minmax": {"method": "minmax"},
    "percentile 99.9": {"percentile": 99.9},
    "percentile 99.99": {"percentile": 99.99},
    "percentile 99.999": {"percentile": 99.999},
    "mse": {"method": "mse"},
    "entropy": {"method": "entropy"},
}


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
