"""Measure how close a quantized graph is to the float one on calibration samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from onnx_release.core.spec import Spec, counted_outputs
from onnx_release.core.types import Answer
from onnx_release.core.workers import map_in_order
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile, without_batch_axis
from onnx_release.graph.activations import session_of
from onnx_release.graph.graph import load_model
from onnx_release.measure.answers import accuracy_drop, compare_answers, equal_numbers, mean
from onnx_release.measure.closeness import Closeness, worst_output
from onnx_release.measure.numerics import OutputError
from onnx_release.runtime.session import run_session

CHUNK = 16


class Scorer:
    """Compares outputs with the float model's, which it keeps for all samples.

    `data` makes answers of them; the task tensor has none, and needs no data.
    """

    def __init__(self, path: Path, spec: Spec, data: ModelData | None, samples: SampleFile) -> None:
        self.spec, self.data, self.samples = spec, data, samples
        self.wanted = self.outputs(load_model(path, weights=False), range(len(samples)), path.parent)

    def outputs(
        self, model: ModelProto, indices: Sequence[int], weights: Path | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Run a model on some samples; `weights` is the folder of the files that have weights of it."""
        session = session_of(model, weights=weights)

        def run(index: int) -> dict[str, np.ndarray]:
            return run_session(session, self.samples.batch(index))

        return list(map_in_order(run, indices, CHUNK))

    def score(self, model: ModelProto, indices: Sequence[int], weights: Path | None = None) -> Closeness:
        """Return how close the model's outputs on some samples are to the float model's; `weights` as above."""
        return self.score_outputs(self.outputs(model, indices, weights), indices)

    def score_outputs(self, found: Sequence[Mapping[str, np.ndarray]], indices: Sequence[int]) -> Closeness:
        """Do the same for outputs that are already there."""
        wanted = [self.wanted[index] for index in indices]
        errors = {tensor.name: OutputError() for tensor in counted_outputs(self.spec)}
        for one, other in zip(wanted, found, strict=True):
            for name, error in errors.items():
                error.add(one[name], other[name])
        closeness = worst_output(errors.values())
        if self.spec.task == "tensor":
            equal = [equal_numbers(self.spec, one, other) for one, other in zip(wanted, found, strict=True)]
            return replace(closeness, agreement=mean(row.get("agrees") for row in equal))
        answers = [self.answer(outputs) for outputs in wanted], [self.answer(outputs) for outputs in found]
        rows = compare_answers(self.spec, *answers, [int(self.samples.labels[index]) for index in indices])
        drop = accuracy_drop(rows)
        return replace(
            closeness,
            agreement=float(np.mean([row["agrees"] for row in rows])),
            accuracy_drop=drop,
            changed_answers=float(np.mean([1 - row["agrees"] for row in rows])) if drop is None else None,
        )

    def answer(self, outputs: Mapping[str, np.ndarray]) -> Answer:
        """Return the answer in the outputs of one sample."""
        assert self.data is not None  # only the task tensor has no answers
        return self.data.postprocess(without_batch_axis(outputs, self.spec))
