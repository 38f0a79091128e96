"""Check the samples of a split with the spec, and write and read them one at a time."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnx_release.core.array_files import ArrayFile, writing_arrays
from onnx_release.core.errors import DataError
from onnx_release.core.files import replacing
from onnx_release.core.params import ENOUGH_TO_CALIBRATE, Prepare
from onnx_release.core.paths import ModelFiles
from onnx_release.core.plain_text import first_few
from onnx_release.core.spec import (
    Spec,
    batch_axis,
    batch_dimension,
    check_bounds,
    check_inputs,
    concrete_shape,
    example_sizes,
)
from onnx_release.core.types import Sample
from onnx_release.data.examples import examples_of
from onnx_release.data.metrics import PrepareMetrics

if TYPE_CHECKING:
    from onnx_release.data.model_data import ModelData

NO_LABEL = -1
# The tasks with right and wrong answers.
LABELLED = ("classification", "detection")
# The axis of the batch in an input that has none, in a file.
NO_AXIS = -1
# How many samples a timed model runs in turn, if its batch is not larger.
MAX_SAMPLES = 32


def write_splits(data: "ModelData", files: ModelFiles, spec: Spec, params: Prepare) -> None:
    """Write the samples of both splits, or none. Raises DataError as `write_samples` and `check_splits` do."""
    with replacing(files.calibration_samples) as first, replacing(files.evaluation_samples) as second:
        write_samples(first, data.samples(files.raw, "calibration"), params.calibration, spec)
        write_samples(second, data.samples(files.raw, "evaluation"), params.evaluation, spec)
        check_splits(SampleFile(first), SampleFile(second))


def write_samples(path: Path, samples: Iterable[Sample], limit: int, spec: Spec) -> None:
    """Write the first `limit` samples as the keys INDEX/INPUT, `labels` (int64, -1 for none) and `groups`.

    An input whose batch is not its first axis also has the key batch_axis/INPUT: the axis, or NO_AXIS.
    A sample without a group gets one of its own, named by the split and its index. Raises DataError for a sample that
    contradicts the spec, has NaN, or has a label that the task does not have, and if there is no sample.
    """
    split = path.stem.removesuffix(".npz")
    labels, groups = [], []
    with writing_arrays(path) as writer:
        for index, sample in enumerate(itertools.islice(samples, limit)):
            check_sample(sample, f"sample {index}, group {sample.group}", spec)
            writer.add_all(sample_key(index), sample.inputs)
            labels.append(NO_LABEL if sample.label is None else sample.label)
            groups.append(f"{split} sample {index}" if sample.group is None else sample.group)
        if not groups:
            raise DataError(f"data.py gives no sample for {split}: samples(raw, {split!r}) must yield at least one")
        axes = {tensor.name: batch_axis(tensor, spec) for tensor in spec.inputs}
        others = {name: NO_AXIS if axis is None else axis for name, axis in axes.items() if axis != 0}
        writer.add_all("batch_axis", {name: np.array(axis, np.int64) for name, axis in others.items()})
        writer.add("labels", np.array(labels, np.int64))
        writer.add("groups", np.array(groups, np.str_))


def check_sample(sample: Sample, where: str, spec: Spec) -> None:
    """Raise DataError, from `where` on, if the sample contradicts the spec, has NaN, or has a bad label."""
    declared = [tensor.name for tensor in spec.inputs]
    if sorted(sample.inputs) != sorted(declared):
        raise DataError(f"{where}: data.py gives the inputs {sorted(sample.inputs)}, spec.yaml declares {declared}")
    sizes: dict[str, int] = {}
    batch = batch_dimension(spec)
    arrays = with_batch_axis({name: np.asarray(array) for name, array in sample.inputs.items()}, input_axes(spec))
    problem = check_inputs(spec, arrays, sizes)
    if problem:
        raise DataError(f"{where}: {problem}{describe_batch(batch)}")
    for name, array in arrays.items():
        if np.isnan(array).any():  # infinity is a value: masks have it
            raise DataError(f"{where}: {name} has NaN")
    problem = check_bounds(spec, sizes)
    if problem:
        raise DataError(f"{where}: {problem}")
    if sample.label is not None:
        check_label(sample.label, where, spec)


def describe_batch(batch: str | int | None) -> str:
    """Say that the pipeline adds the batch axis to a sample, if it does, and how to keep it from it."""
    if batch is None:
        return ""
    added = ", with the batch axis that the pipeline adds"
    return f"{added}; if {batch} is no batch of items, write `batch: null` in spec.yaml" if batch != 1 else added


def check_label(label: int, where: str, spec: Spec) -> None:
    """Raise DataError for a label that the task does not have."""
    if spec.task not in LABELLED:
        raise DataError(f"{where}: the label is {label}, but the task {spec.task} has no right answers: leave it out")
    classes = 2 if spec.task == "detection" else spec.outputs[0].shape[-1]
    if label < 0 or (isinstance(classes, int) and label >= classes):
        meaning = "1 for something to find" if spec.task == "detection" else f"a class of {spec.outputs[0].name}"
        allowed = f"0 to {classes - 1}" if isinstance(classes, int) else "0 or more"
        raise DataError(f"{where}: the label is {label}: it must be {allowed}, {meaning}, or None for no label")


def check_splits(calibration: "SampleFile", evaluation: "SampleFile") -> None:
    """Raise DataError if a group is in both splits: evaluation must not use what calibration has seen."""
    both = set(calibration.groups) & set(evaluation.groups)
    if both:
        raise DataError(
            f"these groups are in both splits: {first_few(sorted(both))}. samples() in data.py must give each group to "
            "calibration or to evaluation, not to both"
        )


class SampleFile:
    """The prepared samples of a split. `labels`: int64 [n], -1 for none. `groups`: str [n]."""

    def __init__(self, path: Path) -> None:
        self.file = ArrayFile(path)
        self.labels = self.file.array("labels")
        self.groups = self.file.array("groups")
        axes = self.file.folder("batch_axis") if "batch_axis" in self.file.names else {}
        self.axes = {name: None if axis == NO_AXIS else int(axis) for name, axis in axes.items()}

    def __len__(self) -> int:
        return len(self.groups)

    def inputs(self, index: int) -> dict[str, np.ndarray]:
        """Return the inputs of one sample by name, without the batch axis."""
        return self.file.folder(sample_key(index))

    def batch(self, index: int) -> dict[str, np.ndarray]:
        """Return the inputs of one sample by name, as a batch of one."""
        return with_batch_axis(self.inputs(index), self.axes)


def spread_evenly(count: int, wanted: int) -> range:
    """Return at most `wanted` of the indices below `count`, evenly spread."""
    return range(0, count, -(-count // wanted))


def sample_key(index: int) -> str:
    """Return the folder of a sample in the file."""
    return f"{index:06d}"


def input_axes(spec: Spec) -> dict[str, int | None]:
    """Return the batch axis of each input by name."""
    return {tensor.name: batch_axis(tensor, spec) for tensor in spec.inputs}


def with_batch_axis(
    arrays: Mapping[str, np.ndarray], axes: Mapping[str, int | None] | None = None
) -> dict[str, np.ndarray]:
    """Add the batch axis to the arrays of one item: the first, or the one that `axes` has for the name."""
    found = {}
    for name, array in arrays.items():
        axis = (axes or {}).get(name, 0)
        found[name] = array if axis is None or axis > array.ndim else np.expand_dims(array, axis)
    return found


def without_batch_axis(arrays: Mapping[str, np.ndarray], spec: Spec, item: int = 0) -> dict[str, np.ndarray]:
    """Return the outputs of one item of a batch, without the batch axis; an output without a batch as it is."""
    axes = {tensor.name: batch_axis(tensor, spec) for tensor in spec.outputs}
    found = {}
    for name, array in arrays.items():
        axis = axes.get(name)
        found[name] = array if axis is None else array[(slice(None),) * axis + (item,)]
    return found


def sample_metrics(files: ModelFiles) -> PrepareMetrics:
    """Count the prepared samples, their groups and their labels."""
    calibration, evaluation = SampleFile(files.calibration_samples), SampleFile(files.evaluation_samples)
    return PrepareMetrics(
        calibration_samples=len(calibration),
        calibration_groups=len(set(calibration.groups)),
        evaluation_samples=len(evaluation),
        evaluation_groups=len(set(evaluation.groups)),
        evaluation_labelled=int((evaluation.labels != NO_LABEL).sum()),
    )


def calibration_note(samples: int, spec: Spec, model: str, params: Prepare) -> str | None:
    """Return a note if int8_static is calibrated on few samples, or None."""
    if samples >= ENOUGH_TO_CALIBRATE or "int8_static" not in spec.variants:
        return None
    if params.calibration < ENOUGH_TO_CALIBRATE:
        fix = (
            f"raise prepare.calibration, which is {params.calibration}, in params.yaml or in models/{model}/params.yaml"
        )
    elif spec.images is not None:
        fix = f"put more photographs into the origin of the folder {spec.images.folder}, and declare its new sha256"
    else:
        fix = f'let samples(raw, "calibration") in models/{model}/data.py give more'
    return (
        f"note: INT8 is calibrated on {samples} sample{'s' * (samples != 1)}, and its ranges fit others only from "
        f"{ENOUGH_TO_CALIBRATE} on: {fix}"
    )


def real_batches(samples: SampleFile, batch: int, spec: Spec, data: "ModelData | None") -> list[dict[str, np.ndarray]]:
    """Return batches of samples, inputs in the order of the spec, each repeated or cut to the example sizes.

    Inputs that examples() of `data` gives are taken from there. Raises DataError if they contradict the spec.
    """
    sizes, named = example_sizes(spec), batch_dimension(spec)
    items = [samples.inputs(index) for index in range(min(len(samples), max(batch, MAX_SAMPLES)))]
    items = (items * batch)[: max(len(items) // batch, 1) * batch]
    given = examples_of(data, spec, sizes | ({named: batch} if isinstance(named, str) else {}))
    return [stack_items(items[i : i + batch], sizes, spec) | given for i in range(0, len(items), batch)]


def stack_items(items: Sequence[Mapping[str, np.ndarray]], sizes: dict[str, int], spec: Spec) -> dict[str, np.ndarray]:
    """Return the items as a batch, each input repeated or cut to `sizes` but for the batch.

    An input without a batch axis is that of the first item.
    """
    stacked = {}
    for tensor in spec.inputs:
        axis, shape = batch_axis(tensor, spec), list(concrete_shape(tensor, sizes))
        if axis is None:
            stacked[tensor.name] = fit_to_shape(items[0][tensor.name], tuple(shape))
            continue
        del shape[axis]
        stacked[tensor.name] = np.stack([fit_to_shape(item[tensor.name], tuple(shape)) for item in items], axis)
    return stacked


def fit_to_shape(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat or cut `array` along each axis to `shape`; an empty array, which has nothing to repeat, becomes zeros."""
    if not array.size:
        return np.zeros(shape, array.dtype)
    repeats = [math.ceil(wanted / size) for wanted, size in zip(shape, array.shape, strict=True)]
    return np.asarray(np.tile(array, repeats)[tuple(slice(size) for size in shape)])  # a scalar is no array by itself
