"""Compare a variant with PyTorch, on every evaluation sample and at the corners of the declared dimensions."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.params import Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import (
    Budget,
    Spec,
    Task,
    Tolerance,
    batch_axis,
    counted_outputs,
    judged_outputs,
)
from onnx_release.core.types import Answer, Arrays
from onnx_release.core.variants import REDUCED
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import NO_LABEL, SampleFile, sample_key, without_batch_axis
from onnx_release.measure.answers import accuracy_drop, compare_answers, details, equal_numbers, mean
from onnx_release.measure.bootstrap import grouped_interval
from onnx_release.measure.budget import over_budget
from onnx_release.measure.case_names import case_names
from onnx_release.measure.closeness import Closeness, worst_output
from onnx_release.measure.numerics import (
    OutputError,
    equal_share,
    finite_or_none,
    is_wrong,
    largest_error,
    other_infinities,
    rounding_multiple,
    tolerance_needed,
    within_tolerance,
)
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.metrics import OutputMetrics, ValidateMetrics


@dataclass
class OutputErrors:
    """The errors of one output of a variant, over all cases."""

    variant: OutputError = field(default_factory=OutputError)  # against PyTorch in float64
    torch: OutputError = field(default_factory=OutputError)  # PyTorch in float32, against itself in float64
    tolerance: float = 0.0  # the atol that would pass, at the rtol of the spec
    worst_case: str = ""
    worst_error: float = 0.0
    largest: float = 0.0  # magnitude of the reference where it is finite
    other_shape: str = ""  # the first case whose shape is not PyTorch's, and both shapes
    other_infinities: str = ""  # the first case where PyTorch is infinite and the variant is not, and how often
    equal: list[float] = field(default_factory=list)  # of each case, the share of equal whole numbers

    def add(self, case: str, float64: np.ndarray, float32: np.ndarray, output: np.ndarray, rtol: float) -> None:
        """Count one case, with PyTorch's outputs in float64 and in float32.

        Where these differ in a size that depends on values, the case is compared with float32.
        """
        truth = float64 if float64.shape == float32.shape else float32
        self.variant.add(truth, output)
        self.torch.add(truth, float32)
        self.tolerance = float(np.maximum(self.tolerance, tolerance_needed(truth, output, rtol)))
        self.largest = max(self.largest, float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0)))
        other = other_infinities(truth, output)
        if other and not self.other_infinities:
            self.other_infinities = f"{other} in the case {case}"
        if not np.issubdtype(output.dtype, np.floating):
            self.equal.append(equal_share(truth, output))
        if output.shape != truth.shape:
            self.other_shape = (
                self.other_shape or f"{list(output.shape)} in the case {case}, PyTorch {list(truth.shape)}"
            )
        error = largest_error(truth, output)
        worse = error > self.worst_error or (math.isnan(error) and not math.isnan(self.worst_error))
        if worse or not self.worst_case:
            self.worst_case, self.worst_error = case, error

    @property
    def torch_rounding_multiple(self) -> float:
        """Return the variant's largest error divided by PyTorch's own, infinite if only PyTorch's is zero."""
        return rounding_multiple(self.variant.max_abs, self.torch.max_abs)

    def passes(self, allowed: Tolerance) -> bool:
        """Return whether the output of a float32 variant is within the tolerance."""
        return within_tolerance(self.variant.max_abs, self.torch.max_abs, self.tolerance, allowed)

    def metrics(self) -> OutputMetrics:
        """Return the metrics of the output."""
        return OutputMetrics(
            max_abs_error=finite_or_none(self.variant.max_abs),
            max_abs_error_torch=finite_or_none(self.torch.max_abs),
            max_rel_error=finite_or_none(self.variant.max_rel),
            sqnr_db=finite_or_none(self.variant.sqnr_db),
            cosine=finite_or_none(self.variant.mean_cosine),
            equal=mean(self.equal),
            worst_case=self.worst_case,
            tolerance_needed=finite_or_none(self.tolerance),
        )


def validate(
    model: OnnxModel, data: ModelData, files: ModelFiles, params: Validate, budget: Budget | None = None
) -> tuple[ValidateMetrics, list[dict[str, Any]]]:
    """Return the metrics of the variant that `model` runs, and a row for each evaluation sample of `files`.

    A float32 variant passes if the largest error of each output, compared with PyTorch in float64, is within the spec's
    tolerance: `torch_rounding_multiple` times PyTorch's own float32 error, or every element within
    atol + rtol * |reference|. An output with `counts: false` is not judged. A variant with reduced precision has a
    `budget` and passes if it keeps within it. Where PyTorch is infinite, every variant must be the same infinity; such
    elements are in no error.
    """
    spec = model.spec
    errors = {tensor.name: OutputErrors() for tensor in spec.outputs}
    samples = SampleFile(files.evaluation_samples)
    cases, agreements = validate_cases(model, data, ArrayFile(files.reference_cases), errors)
    rows = validate_samples(model, data, samples, ArrayFile(files.reference_samples), errors)
    counted = {tensor.name: errors[tensor.name] for tensor in counted_outputs(spec)}
    values = error_metrics(counted) | answer_metrics(spec.task, rows, params)
    if spec.task == "detection":
        values["case_agreement"] = min(agreements, default=None)
    if budget is None:
        failures = over_tolerance(errors, spec, files.model)
    else:
        failures = other_shapes(counted) or not_infinite(counted) or over_budget(closeness(values), budget)
    metrics = ValidateMetrics(
        passed=not failures,
        made=True,
        failure="; ".join(failures),
        cases=cases + len(samples),
        provider=model.provider,
        provider_note=model.note,
        outputs={name: item.metrics() for name, item in errors.items()},
        **values,
    )
    return metrics, rows


def validate_cases(
    model: OnnxModel, data: ModelData, reference: ArrayFile, errors: dict[str, OutputErrors]
) -> tuple[int, list[float]]:
    """Run every shape case of the reference and add its errors to `errors`.

    Return how many cases there are and, where the task is detection, the agreement of the boxes in each.
    """
    spec = model.spec
    agreements: list[float] = []
    names = case_names(reference)
    for name in names:
        outputs = model.run(reference.folder(f"{name}/inputs"))
        add_errors(errors, name, reference, name, outputs, spec.tolerance.rtol)
        if spec.task == "detection":
            agreements.append(case_boxes(spec, data, reference.folder(f"{name}/float32"), outputs))
    return len(names), agreements


def validate_samples(
    model: OnnxModel, data: ModelData, samples: SampleFile, reference: ArrayFile, errors: dict[str, OutputErrors]
) -> list[dict[str, Any]]:
    """Run every evaluation sample and add its errors to `errors`; return a row for each."""
    spec = model.spec
    rows: list[dict[str, Any]] = []
    wanted: list[Answer] = []
    found: list[Answer] = []
    for index in range(len(samples)):
        key = sample_key(index)
        outputs = model.run(samples.batch(index))
        group = str(samples.groups[index])
        add_errors(errors, sample_case(index, group), reference, key, outputs, spec.tolerance.rtol)
        rows.append({"sample": index, "group": group, **sample_error(spec, reference, key, outputs)})
        rows[-1] |= equal_numbers(spec, reference.folder(f"{key}/float64"), outputs)
        if spec.task != "tensor":
            wanted.append(data.postprocess(without_batch_axis(reference.folder(f"{key}/float32"), spec)))
            found.append(data.postprocess(without_batch_axis(outputs, spec)))
    if spec.task == "tensor":
        return rows
    answers = compare_answers(spec, wanted, found, [int(label) for label in samples.labels])
    return [row | answer for row, answer in zip(rows, answers, strict=True)]


def sample_case(index: int, group: str) -> str:
    """Return the name of a sample in messages: its index, and its group unless that is only the index again."""
    name = f"evaluation sample {index}"
    return name if group == name else f"{name} ({group})"


def add_errors(
    errors: dict[str, OutputErrors], case: str, reference: ArrayFile, key: str, outputs: Arrays, rtol: float
) -> None:
    """Count the outputs of one case, whose reference has the key `key`."""
    float64, float32 = reference.folder(f"{key}/float64"), reference.folder(f"{key}/float32")
    for name, item in errors.items():
        item.add(case, float64[name], float32[name], outputs[name], rtol)


def sample_error(spec: Spec, reference: ArrayFile, key: str, outputs: Arrays) -> dict[str, float]:
    """Return the largest error of one sample over its outputs."""
    float64 = reference.folder(f"{key}/float64")
    errors = [largest_error(float64[tensor.name], outputs[tensor.name]) for tensor in counted_outputs(spec)]
    return {"max_abs_error": float(np.max(errors))}


def other_shapes(errors: dict[str, OutputErrors]) -> list[str]:
    """Describe each output that has another shape than PyTorch's in some case."""
    return [
        f"{name} has the shape {item.other_shape}: it is not close enough to PyTorch to give as many; if that may be, "
        "write `counts: false` beside the output in spec.yaml"
        for name, item in errors.items()
        if item.other_shape
    ]


def not_infinite(errors: dict[str, OutputErrors]) -> list[str]:
    """Describe each output that is not PyTorch's infinity in some case."""
    return [f"of {name}, {item.other_infinities}" for name, item in errors.items() if item.other_infinities]


def case_boxes(spec: Spec, data: ModelData, torch_outputs: Arrays, outputs: Arrays) -> float:
    """Return the mean agreement of the boxes in the items of a shape case."""
    first = spec.outputs[0]
    axis = batch_axis(first, spec)
    batch = 1 if axis is None else outputs[first.name].shape[axis]
    wanted, found = (
        [data.postprocess(without_batch_axis(side, spec, item)) for item in range(batch)]
        for side in (torch_outputs, outputs)
    )
    return float(np.mean([row["agrees"] for row in compare_answers(spec, wanted, found, [NO_LABEL] * batch)]))


def error_metrics(errors: dict[str, OutputErrors]) -> dict[str, Any]:
    """Return the errors of the worst output, under their names in ValidateMetrics."""
    found = list(errors.values())
    worst = worst_output([item.variant for item in found])
    return {
        "max_abs_error": worst.max_abs_error,
        "max_rel_error": finite_or_none(float(np.max([item.variant.max_rel for item in found]))),
        "error_vs_torch_rounding": finite_or_none(float(np.max([item.torch_rounding_multiple for item in found]))),
        "sqnr_db": worst.sqnr_db,
        "cosine": worst.cosine,
    }


def over_tolerance(errors: dict[str, OutputErrors], spec: Spec, model: str) -> list[str]:
    """Describe each output of a float32 variant that is judged and beyond the tolerance."""
    return [
        describe_excess(tensor.name, errors[tensor.name], spec.tolerance, model)
        for tensor in judged_outputs(spec)
        if not errors[tensor.name].passes(spec.tolerance)
    ]


def closeness(values: dict[str, Any]) -> Closeness:
    """Return those metrics of a validation that a budget bounds."""
    names = ("sqnr_db", "max_abs_error", "cosine", "agreement", "accuracy_drop")
    return Closeness(**{name: values[name] for name in names})


def budget_of(variant: str, spec: Spec) -> Budget | None:
    """Return the budget of a variant; None for one in float32, which has a tolerance instead."""
    return spec.budget if variant in REDUCED else None


def describe_excess(name: str, item: OutputErrors, allowed: Tolerance, model: str) -> str:
    """Describe an output beyond the tolerance: the case, how far off it is, and which tolerance would pass.

    An output that is off by far more than rounding is wrong, and no tolerance is named that would hide it.
    """
    if item.other_shape:
        return f"{name} has the shape {item.other_shape}"
    if item.other_infinities:
        return f"of {name}, {item.other_infinities}"
    if not math.isfinite(item.variant.max_abs):
        return f"{name} has NaN or infinity in the case {item.worst_case}"
    if is_wrong(item.variant.max_abs, item.torch.max_abs, item.largest):
        return (
            f"{name} is wrong, and not merely rounded: off by {item.worst_error:.3g} in the case {item.worst_case}, "
            f"{item.torch_rounding_multiple:.3g} times PyTorch's own rounding. {wrong_hint(model)}"
        )
    return (
        f"{name} is off by {item.worst_error:.3g} in the case {item.worst_case}: "
        f"{item.torch_rounding_multiple:.3g} times PyTorch's own rounding, where at most "
        f"{allowed.torch_rounding_multiple:g} is allowed. It would pass with "
        f"tolerance.torch_rounding_multiple {item.torch_rounding_multiple:.3g} in spec.yaml, or with tolerance.atol "
        f"{item.tolerance:.3g} at rtol {allowed.rtol:g}"
    )


def wrong_hint(model: str) -> str:
    """Say how to find what makes an answer wrong."""
    explain = f"`python -m tools.explain {{}} --model {model}`"
    return (
        f"A larger tolerance would only hide it: if the variant export is wrong too, {explain.format('export')} names "
        "the first module whose values differ from PyTorch's, with its source line, and "
        f"`python -m tools.doctor {model}` looks for the usual mistakes; if only fp32 is, {explain.format('fp32')} "
        "shows the nodes that slimming changed: find the fusion to blame by adding names to slim.skip_fusion_patterns. "
        "If it follows the order of equal values, as after a topk, write `counts: false` beside the output in spec.yaml"
    )


def answer_metrics(task: Task, rows: list[dict[str, Any]], params: Validate) -> dict[str, Any]:
    """Return agreement with PyTorch on all samples, accuracy on those with labels, and the task's own metrics.

    The keys are the same for every model, except those of the task. A metric without a value, such as the accuracy
    without labels, is None.
    """
    answers = [row for row in rows if "agrees" in row]  # none has one where the task is tensor
    labelled = [row for row in answers if row["variant_right"] is not None]
    metrics = share_with_interval("agreement", [(row["agrees"], row["group"]) for row in answers], params)
    metrics |= share_with_interval("accuracy", [(row["variant_right"], row["group"]) for row in labelled], params)
    metrics |= {"accuracy_torch": mean(row["torch_right"] for row in labelled)}
    metrics |= {"accuracy_drop": accuracy_drop(answers), "labelled": len(labelled)}
    return metrics | details(task, answers)


def share_with_interval(name: str, values: list[tuple[float, str]], params: Validate) -> dict[str, Any]:
    """Return the mean of values in 0..1 with its interval by `grouped_interval`; all None without a value."""
    if not values:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    numbers, groups = [value for value, _ in values], [group for _, group in values]
    low, high = grouped_interval(numbers, groups, params.resamples, params.confidence, params.seed)
    return {name: float(np.mean(numbers)), f"{name}_low": low, f"{name}_high": high}
