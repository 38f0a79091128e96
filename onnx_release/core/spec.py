"""Read models/NAME/spec.yaml, the single source for a model's names, dtypes, shapes and dynamic axes."""

import itertools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from onnx_release.core.errors import SpecError
from onnx_release.core.paths import MODELS, ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.core.size_formulas import is_formula, size_of, sizes_in
from onnx_release.core.yaml_files import Strict, read_yaml

if TYPE_CHECKING:
    import numpy as np

# Every number has a lower and an upper bound: tests/core/test_spec.py checks it.
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Value = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]  # of pixels, which are about 0..1
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Decibels = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=16_384)]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]  # of an axis; ONNX Runtime's kernels count in 32 bits
Axis = Size | str
# The shape cases run the network with every dimension at its maximum, in float64 too, which needs many times as much.
AUTO = "auto"
LARGEST_INPUT = 4 * 2**30
Task = Literal["classification", "detection", "embedding", "tensor"]
Exporter = Literal["auto", "dynamo", "torchscript"]
Dtype = Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
FLOATS = ("float32", "float16")
# The dtype to declare in the place of one that a release does not have, and how a network gives it.
CASTS = {
    "float64": ("float32", ".float()"),
    "bfloat16": ("float32", ".float()"),
    "int16": ("int32", ".int()"),
    "complex64": ("float32 with a last axis of 2", "torch.view_as_real()"),
    "complex128": ("float32 with a last axis of 2", "torch.view_as_real()"),
}
ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}


class Origin(Strict):
    """The origin of a source: a file in a wheel, a URL, or the path of a file or a folder.

    A relative path starts at the model's folder.
    """

    wheel: str | None = None
    member: str | None = None
    url: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> "Origin":
        if sum(value is not None for value in (self.wheel, self.url, self.path)) != 1:
            raise ValueError("give one of wheel, url and path")
        if (self.wheel is None) != (self.member is None):
            raise ValueError("wheel and member go together: the member is the file's path inside the wheel")
        return self


class Source(Strict):
    """A file or a folder that is fetched to data/raw/NAME/ under `name` and must have this sha256.

    The sha256 of a folder is onnx_release.data.checksums.tree_sha256. `release` puts it into the release, for
    preprocess() or postprocess() to read. `trusted_pickle` lets a checkpoint run code while it is loaded, if it needs
    to; the sha256 says which file is trusted.
    """

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    origin: Origin = Field(alias="from")
    release: bool = False
    trusted_pickle: bool = False

    @field_validator("name")
    @classmethod
    def plain_file_name(cls, name: str) -> str:
        if PurePath(name).name != name or name in ("", ".", ".."):
            raise ValueError("the name of a source is a plain file name, without folders")
        return name


class Dimension(Strict):
    """A symbolic dimension: its smallest and its largest size, and the size in an example.

    With `multiple_of` only its multiples are sizes. A `min` of 0 allows an empty axis, such as that of a cache.
    """

    min: Annotated[int, Field(ge=0, le=2**31 - 1)]
    max: Annotated[int, Field(ge=2, le=2**31 - 1)]
    example: Annotated[
        int, Field(ge=2, le=2**31 - 1)
    ]  # torch.export specialises sizes 0 and 1 (pytorch/pytorch#157621)
    multiple_of: Size = 1

    @model_validator(mode="after")
    def ordered(self) -> "Dimension":
        if not self.min <= self.example <= self.max:
            raise ValueError(f"example {self.example} is not between min {self.min} and max {self.max}")
        if self.example % self.multiple_of:
            raise ValueError(f"example {self.example} is not a multiple of {self.multiple_of}")
        return self

    @property
    def smallest(self) -> int:
        """Return the smallest size that is allowed."""
        return -(-self.min // self.multiple_of) * self.multiple_of

    @property
    def largest(self) -> int:
        """Return the largest size that is allowed."""
        return self.max // self.multiple_of * self.multiple_of


class Tensor(Strict):
    """An input or an output.

    A string in the shape is the name of a symbolic dimension, or a formula such as `past + sequence` for a size that
    follows from others; a scalar has no axis.
    """

    name: Annotated[str, Field(min_length=1, pattern="^[^/]*$")]  # a / would split a key of the sample files
    dtype: Dtype
    shape: list[Axis]

    @field_validator("dtype", mode="before")
    @classmethod
    def in_a_release(cls, dtype: Any) -> Any:
        if isinstance(dtype, str) and dtype in CASTS:
            instead, cast = CASTS[dtype]
            raise ValueError(
                f"a release has no such tensors: declare {instead}; forward() returns an output in it with {cast}"
            )
        return dtype


class Output(Tensor):
    """An output. `counts` says whether it counts in the errors that a budget bounds; by default, those of floats do."""

    counts: bool | None = None


class Tolerance(Strict):
    """How far a float32 variant may be from PyTorch in float64. It passes within either of two bounds.

    One is `torch_rounding_multiple` times PyTorch's own rounding error in float32, the other atol + rtol * |reference|.
    """

    torch_rounding_multiple: Bound = 4
    atol: Bound = 1e-5
    rtol: Bound = 1e-4


class Budget(Strict):
    """What a variant with reduced precision may lose compared with PyTorch; a bound that is not given is not checked.

    `agreement`: the least share of samples that keep PyTorch's answer (onnx_release/measure/answers.py defines it for
    each task). `accuracy_drop`: the most accuracy that may be lost, on samples with a label. `sqnr_db`: the least SQNR
    of any output. `cosine`: the least mean cosine of any output.
    """

    agreement: Share | None = None
    accuracy_drop: Share | None = None
    sqnr_db: Decibels | None = None
    cosine: Share | None = None

    @model_validator(mode="after")
    def something_bound(self) -> "Budget":
        if not self.model_dump(exclude_none=True):
            raise ValueError("it has no bound: give agreement, accuracy_drop, sqnr_db or cosine")
        return self


def names_or_a_source(names: Any) -> Any:
    """Return `names`: a list of one-line texts, the name of a source, or None. Raises ValueError for anything else."""
    if isinstance(names, list):
        if not names:
            raise ValueError("the list is empty: name the classes, or leave the key out")
        for position, name in enumerate(names):
            if not isinstance(name, str):
                raise ValueError(f"name {position} is not text: write it in quotes")
            if not name or name.splitlines() != [name]:
                raise ValueError(f"name {position} is empty or has more than one line")
    elif not isinstance(names, str | None):
        raise ValueError("give a list of names, or the name of the source that has one on each line")
    return names


def composed_form(name: str) -> str:
    """Return `name` in Unicode's composed form (NFC), since macOS, for one, writes letters in another form."""
    return unicodedata.normalize("NFC", name)


def find_repeated_name(names: Sequence[str], kind: str = "", start: int = 0) -> str | None:
    """Describe the first two `names` that would be one folder on some file systems, or return None.

    Such names differ only by case and Unicode form. With `kind`, what the names are, the message has their positions,
    counted from `start`.
    """
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        first = seen.setdefault(composed_form(name).casefold(), place)
        if first == place:
            continue
        other, places = names[first], f" ({kind} {first + start} and {place + start})" if kind else ""
        if name == other:
            return f"{name} is named twice{places}: each name is the folder of one output"
        if composed_form(name) == composed_form(other):
            return f"{other!a} and {name!a}{places} are the same letters in two Unicode forms: rename or remove one"
        return f"{other} and {name}{places} differ only by case, and are one name on some systems: rename one"
    return None


class Images(Strict):
    """Photographs in CLASS/*.jpg (or .jpeg, .png) below the source `folder`, instead of a data.py.

    The shorter side is resized to `resize` by `interpolation`. The middle `crop` by `crop` pixels are scaled to 0..1,
    and normalised by `mean` and `std`, three of each for RGB and one for grey. `classes` are the names of the folders
    in the order of the network's outputs, or the name of the source that has them, one on each line in UTF-8; without
    it, they are sorted by name. `evaluation` is the share of the photographs for evaluation; the others are for
    calibration. If the photographs are in train/CLASS and val/CLASS, these are the two parts, and `evaluation` is left
    out. `seed` draws the photographs of each part, and their order.
    """

    folder: str
    resize: Pixels
    crop: Pixels
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Annotated[list[Value], Field(min_length=1, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=3)]
    classes: list[str] | str | None = None
    evaluation: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    @field_validator("classes", mode="before")
    @classmethod
    def distinct_names_or_a_source(cls, classes: Any) -> Any:
        names = names_or_a_source(classes)
        problem = find_repeated_name(names, "names") if isinstance(names, list) else None
        if problem:
            raise ValueError(problem)
        return names

    @model_validator(mode="after")
    def fits(self) -> "Images":
        if len(self.mean) != len(self.std) or len(self.mean) == 2:
            raise ValueError("mean and std have three values each for RGB, or one each for grey")
        if self.crop > self.resize:
            raise ValueError(f"a crop of {self.crop} pixels does not fit into {self.resize}")
        return self


class Spec(Strict):
    """The content of models/NAME/spec.yaml.

    `variants` are the variants with reduced precision that make sense for the model; the pipeline makes no others.
    `exclude` names nodes, operators or PyTorch modules that both INT8 variants keep in float.
    `derived` names the sizes of outputs that follow from the inputs, such as the rows of a detector's map, or from
    their values, such as the number of boxes found. `batch_dimension` explains `batch`. `images` replaces data.py, and
    `transformers`, the name of a class of that package, replaces network.py. `labels` are the names of the classes in
    the order of their numbers, or the name of the source that has them, one on each line in UTF-8; without it, the
    names are those of the folders of `images`. `exporter` replaces export.exporter of the parameters.
    """

    task: Task
    sources: list[Source]
    images: Images | None = None
    transformers: str | None = None
    labels: list[str] | str | None = None
    dimensions: dict[str, Dimension]
    derived: list[str] = Field(default_factory=list)
    batch: str | None = AUTO
    inputs: Annotated[list[Tensor], Field(min_length=1)]
    outputs: Annotated[list[Output], Field(min_length=1)]
    variants: list[Literal["fp16", "int8_dynamic", "int8_static"]]
    exclude: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    budget: Budget | None = None
    tolerance: Tolerance = Tolerance()
    exporter: Exporter | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def labels_or_a_source(cls, labels: Any) -> Any:
        return names_or_a_source(labels)

    @model_validator(mode="after")
    def names_are_unique(self) -> "Spec":
        for kind, names in (
            ("sources", [source.name for source in self.sources]),
            ("inputs or outputs", [tensor.name for tensor in (*self.inputs, *self.outputs)]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two {kind} are called {name}")
        return self

    @model_validator(mode="after")
    def dimensions_are_declared(self) -> "Spec":
        used = set()
        for name in (*self.dimensions, *self.derived):
            if is_formula(name):
                raise ValueError(
                    f"the dimension {name!r}: its name has letters, digits and _, and begins with a letter"
                )
        for tensor in (*self.inputs, *self.outputs):
            for name in [name for axis in tensor.shape if isinstance(axis, str) for name in sizes_in(axis)]:
                if name not in (*self.dimensions, *self.derived):
                    raise ValueError(
                        f"{tensor.name} uses the dimension {name}, which is not under dimensions; a size of outputs "
                        "that follows from the inputs belongs under derived"
                    )
                used.add(name)
        for name in (*self.dimensions, *self.derived):
            if name not in used:
                raise ValueError(f"no input or output uses the dimension {name}")
        given = {axis for tensor in self.inputs for axis in tensor.shape}
        for name in self.derived:
            if name in given or name in self.dimensions:
                raise ValueError(
                    f"the derived size {name} is a size of the inputs: declare it only under dimensions, or write the "
                    "formula by which it follows as the axis, such as past + sequence"
                )
        for tensor in (*self.inputs, *self.outputs):
            for axis in tensor.shape:
                if is_formula(axis):
                    check_formula(str(axis), tensor, self)
        return self

    @model_validator(mode="after")
    def batch_is_an_axis_of_the_inputs(self) -> "Spec":
        if self.batch not in (None, AUTO) and not any(self.batch in tensor.shape for tensor in self.inputs):
            raise ValueError(f"batch: no input has the dimension {self.batch}: write null if there is none")
        batch = batch_dimension(self)
        if batch is None and self.batch == AUTO and "batch" in self.dimensions:
            raise ValueError("no input has the dimension batch, which must be an axis of the inputs and must allow 1")
        if isinstance(batch, str) and (self.dimensions[batch].smallest, self.dimensions[batch].multiple_of) != (1, 1):
            raise ValueError(
                f"the batch, the dimension {batch} of the inputs, must allow 1; if it is no batch of items, write "
                "`batch: null`"
            )
        return self

    @model_validator(mode="after")
    def inputs_fit_into_memory(self) -> "Spec":
        largest = {name: bounds.largest for name, bounds in self.dimensions.items()}
        for tensor in self.inputs:
            size = math.prod(concrete_shape(tensor, largest)) * ITEM_BYTES[tensor.dtype]
            if size > LARGEST_INPUT:
                raise ValueError(
                    f"{tensor.name} takes {size / 2**30:.3g} GiB with its dimensions at their max, where the network "
                    f"is run too: {LARGEST_INPUT // 2**30} GiB is the most, so lower a max"
                )
        return self

    @model_validator(mode="after")
    def fits_the_task(self) -> "Spec":
        if self.task == "classification" and len(self.outputs[0].shape) != 2:
            raise ValueError("the first output of a classification must have the shape [batch, classes]")
        if self.variants and self.budget is None:
            raise ValueError("variants lose accuracy: say in budget how much they may lose, or write `variants: []`")
        if self.budget is not None:
            check_budget(self.budget, self.task, any(tensor.dtype not in FLOATS for tensor in self.outputs))
        if self.images is not None:
            check_images(self.images, self)
        if self.labels is not None:
            check_labels(self.labels, self)
        return self


def check_formula(formula: str, tensor: Tensor, spec: Spec) -> None:
    """Raise ValueError if a formula in a shape has a size that no input shows, the batch, or no size at a corner."""
    names = sizes_in(formula)
    given = {axis for other in spec.inputs for axis in other.shape}
    for name in names:
        if name not in given:
            raise ValueError(f"{tensor.name}: no input has an axis of the size {name} that `{formula}` follows")
        if tensor in spec.inputs and name == batch_dimension(spec):
            raise ValueError(
                f"{tensor.name}: the batch is an axis of its own, not a part of `{formula}`; if {name} is no batch of "
                "items, write `batch: null`"
            )
    bounds = [(spec.dimensions[name].smallest, spec.dimensions[name].largest) for name in names]
    for corner in itertools.product(*bounds):
        sizes = dict(zip(names, corner, strict=True))
        if size_of(formula, sizes) < 0:
            at = ", ".join(f"{name} {value}" for name, value in sizes.items())
            raise ValueError(f"{tensor.name}: `{formula}` is no size at {at}")


def check_budget(budget: Budget, task: str, whole_numbers: bool = False) -> None:
    """Raise ValueError for a bound on a metric that the task does not have; an output may have `whole_numbers`."""
    if budget.agreement is not None and task == "tensor" and not whole_numbers:
        raise ValueError("budget.agreement: the task tensor has no answers to agree on; give sqnr_db or cosine")
    if budget.accuracy_drop is not None and task in ("tensor", "embedding"):
        raise ValueError(f"budget.accuracy_drop: the task {task} has no right answers; give sqnr_db or cosine")


def check_images(images: Images, spec: Spec) -> None:
    """Raise ValueError if the spec does not fit the photographs."""
    if spec.task != "classification":
        raise ValueError(f"images: the folders are classes, but the task is {spec.task}: write a data.py")
    if images.folder not in [source.name for source in spec.sources]:
        raise ValueError(f"images.folder: {images.folder} is not the name of one of the sources")
    check_source("images.classes", images.classes, spec)
    count = class_count(spec)
    if count is not None and isinstance(images.classes, list) and len(images.classes) > count:
        raise ValueError(
            f"images.classes has {count_of(len(images.classes), 'name')}, "
            f"{spec.outputs[0].name} {count_of(count, 'class')}"
        )
    given = (len(images.mean), images.crop, images.crop)
    declared = spec.inputs[0].shape
    fits = len(declared) == 4 and all(
        isinstance(axis, str) or axis == size for axis, size in zip(declared[1:], given, strict=True)
    )
    if len(spec.inputs) != 1 or spec.inputs[0].dtype != "float32" or not fits:
        raise ValueError(
            f"images: mean and crop make one input, float32 [batch, {', '.join(map(str, given))}], but the spec "
            f"declares {', '.join(f'{tensor.name} {tensor.dtype} {tensor.shape}' for tensor in spec.inputs)}"
        )


def check_labels(labels: list[str] | str, spec: Spec) -> None:
    """Raise ValueError if the names do not fit the spec's classes, or are in a source that it does not have."""
    if spec.task not in ("classification", "detection"):
        raise ValueError(f"labels: the task {spec.task} has no classes to name: leave it out")
    check_source("labels", labels, spec)
    count = class_count(spec)
    if count is not None and isinstance(labels, list) and len(labels) != count:
        raise ValueError(
            f"labels has {count_of(len(labels), 'name')}, {spec.outputs[0].name} {count_of(count, 'class')}"
        )


def check_source(key: str, names: list[str] | str | None, spec: Spec) -> None:
    """Raise ValueError if the names under `key` are in a source that the spec does not have."""
    if isinstance(names, str) and names not in [source.name for source in spec.sources]:
        raise ValueError(f"{key}: {names} is not the name of one of the sources; write names themselves as a list")


def batch_dimension(spec: Spec) -> str | Literal[1] | None:
    """Return the dimension whose items are independent: its name, 1 if the first axes are fixed at 1, or None.

    It is the one under `batch` if that is given, else the dimension called batch, else the first axis if it is the same
    for all inputs and may be 1. Samples are without it, and the server fills it with the items of several requests.
    """
    if spec.batch != AUTO:
        return spec.batch
    if any("batch" in tensor.shape for tensor in spec.inputs):
        return "batch"
    first = spec.inputs[0].shape[0] if spec.inputs[0].shape else None
    if first is None or any(tensor.shape[:1] != [first] for tensor in spec.inputs):
        return None
    if isinstance(first, str):
        return first if first in spec.dimensions and spec.dimensions[first].smallest == 1 else None
    return 1 if first == 1 else None


def batch_axis(tensor: Tensor, spec: Spec) -> int | None:
    """Return the axis of `tensor` that is the batch, or None."""
    batch = batch_dimension(spec)
    if batch == 1:
        return 0 if tensor.shape[:1] in ([1], ["batch"]) else None
    return tensor.shape.index(batch) if batch in tensor.shape else None


def largest_batch(spec: Spec) -> int:
    """Return the most items that a call may have; 1 without a batch."""
    batch = batch_dimension(spec)
    return spec.dimensions[batch].largest if isinstance(batch, str) else 1


def rows_are_the_batch(spec: Spec) -> bool:
    """Return whether row i of the outputs belongs to row i of the inputs, so that requests may share a call."""
    batch = batch_dimension(spec)
    return batch is not None and all(
        tensor.shape[:1] == [batch]
        and not any(batch in sizes_in(axis) for axis in tensor.shape[1:] if isinstance(axis, str))
        for tensor in (*spec.inputs, *spec.outputs)
    )


def counted_outputs(spec: Spec) -> list[Output]:
    """Return the outputs whose errors a budget bounds: those of floats, unless `counts` says otherwise; never none."""
    counted = [tensor for tensor in spec.outputs if tensor.counts or (tensor.counts is None and tensor.dtype in FLOATS)]
    return counted or spec.outputs


def judged_outputs(spec: Spec) -> list[Output]:
    """Return the outputs that must be PyTorch's in float32: all but those with `counts: false`; never none."""
    return [tensor for tensor in spec.outputs if tensor.counts is not False] or spec.outputs


def class_count(spec: Spec) -> int | None:
    """Return how many classes a classification has; None for another task, and if their number is symbolic."""
    classes = spec.outputs[0].shape[-1]
    return classes if spec.task == "classification" and isinstance(classes, int) else None


def load_spec(model: str) -> Spec:
    """Read the spec of models/`model`. Raises SpecError, naming each key that is wrong."""
    if not model.isidentifier() or not (MODELS / model).is_dir():
        known = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/spec.yaml"))) or "none"
        raise SpecError(f"there is no model called {model}: models/ has {known}")
    return read_yaml(ModelFiles(model).spec, Spec, SpecError)


def example_sizes(spec: Spec) -> dict[str, int]:
    """Return the example size of each dimension of the inputs."""
    return {name: bounds.example for name, bounds in input_dimensions(spec).items()}


def smallest_sizes(spec: Spec) -> dict[str, int]:
    """Return the smallest size of each dimension of the inputs."""
    return {name: bounds.smallest for name, bounds in input_dimensions(spec).items()}


def of_batch(spec: Spec, items: int) -> dict[str, int]:
    """Return the example sizes with a batch of `items`, if there is a batch."""
    batch = batch_dimension(spec)
    return example_sizes(spec) | ({batch: items} if isinstance(batch, str) else {})


def input_dimensions(spec: Spec) -> dict[str, Dimension]:
    """Return the dimensions that an input has: the others are sizes that only outputs have."""
    given = {axis for tensor in spec.inputs for axis in tensor.shape}
    return {name: bounds for name, bounds in spec.dimensions.items() if name in given}


def concrete_shape(tensor: Tensor, sizes: dict[str, int]) -> tuple[int, ...]:
    """Return the shape of `tensor` with each symbolic dimension at its size in `sizes`, and formulas of them."""
    return tuple(size_of(axis, sizes) if isinstance(axis, str) else axis for axis in tensor.shape)


def symbolic_axes(tensor: Tensor) -> dict[int, str]:
    """Return the name or formula of each symbolic axis of `tensor`, by its position."""
    return {position: axis for position, axis in enumerate(tensor.shape) if isinstance(axis, str)}


def check_bounds(spec: Spec, sizes: Mapping[str, int]) -> str | None:
    """Describe the first of `sizes`, by the names of the dimensions, that is out of bounds, or return None."""
    for name, size in sizes.items():
        bounds = spec.dimensions[name]
        if not bounds.min <= size <= bounds.max:
            return f"{name} is {size}, where {bounds.min} to {bounds.max} is declared"
        if size % bounds.multiple_of:
            return f"{name} is {size}, where a multiple of {bounds.multiple_of} is declared"
    return None


def check_inputs(spec: Spec, inputs: "Mapping[str, np.ndarray]", sizes: dict[str, int]) -> str | None:
    """Describe how the first of the inputs contradicts the spec's dtypes and shapes, or return None.

    The sizes of all dimensions are added to `sizes`.
    """
    following = [tensor for tensor in spec.inputs if any(is_formula(axis) for axis in tensor.shape)]
    for tensor in (*spec.inputs, *following):  # a formula may have sizes that only a later input shows
        problem = check_array(tensor, str(inputs[tensor.name].dtype), inputs[tensor.name].shape, sizes)
        if problem:
            return problem
    return None


def check_array(tensor: Tensor, dtype: str, shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """Describe how an array of this dtype and shape contradicts the declaration of `tensor`, or return None.

    `sizes` has the sizes of the dimensions that are known by now; those that this array shows are added to it. A
    formula with a size that is not known is not checked.
    """
    if dtype != tensor.dtype:
        return f"{tensor.name} is {dtype} where {tensor.dtype} is declared"
    if len(shape) != len(tensor.shape):
        return f"{tensor.name} has the shape {list(shape)} where {tensor.shape} is declared"
    for axis, size in zip(tensor.shape, shape, strict=True):
        expected = expected_size(axis, size, sizes)
        if size != expected:
            return f"{tensor.name} has the shape {list(shape)} where {tensor.shape} is declared ({axis} is {expected})"
    return None


def expected_size(axis: int | str, found: int, sizes: dict[str, int]) -> int:
    """Return the size that an axis must have: `found` where that is the first to show it, which is added to `sizes`."""
    if not isinstance(axis, str):
        return axis
    if not is_formula(axis):
        return sizes.setdefault(axis, found)
    return size_of(axis, sizes) if all(name in sizes for name in sizes_in(axis)) else found
