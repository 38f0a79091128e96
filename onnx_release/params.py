"""params.yaml: one pydantic model a section. An unknown key or a bad value ends the stage and is named."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from onnx_release.errors import ParameterError
from onnx_release.paths import PARAMS
from onnx_release.yaml_files import Strict, read_yaml

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# 13 is the first opset whose QuantizeLinear works per channel. The upper ends are torch 2.13's
# ONNX_MAX_OPSET and ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET.
OPSETS = {"dynamo": range(13, 24), "torchscript": range(13, 21)}


class Prepare(Strict):
    """How many samples of each split to take, at most."""

    calibration: Count
    evaluation: Count


class Reference(Strict):
    """The seed that draws which samples fill the shape cases."""

    seed: Seed


class Export(Strict):
    exporter: Literal["dynamo", "torchscript"]
    opset: int

    @model_validator(mode="after")
    def opset_in_range(self) -> "Export":
        known = OPSETS[self.exporter]
        if self.opset not in known:
            raise ValueError(
                f"opset {self.opset} is out of range: the {self.exporter} exporter takes {known[0]} to {known[-1]}"
            )
        return self


class Slim(Strict):
    """Fusions to leave out, and how far the slimmed graph may be from the exported one."""

    skip_fusion_patterns: list[str]
    atol: Tolerance
    rtol: Tolerance


class Validate(Strict):
    """When a float32 variant passes, and how the intervals are made."""

    torch_rounding_multiple: Tolerance
    atol: Tolerance
    rtol: Tolerance
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


class Benchmark(Strict):
    """`threads` null means every core; another `replicate` makes a run that the run cache does not know."""

    batch: Count
    threads: Count | None
    starts: Count
    rounds: Annotated[int, Field(ge=5)]
    turn_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    settle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: Seed
    replicate: int


class Params(Strict):
    model: str
    prepare: Prepare
    reference: Reference
    export: Export
    slim: Slim
    validate_: Validate = Field(alias="validate")
    benchmark: Benchmark

    @field_validator("model")
    @classmethod
    def plain_name(cls, name: str) -> str:
        if not name.isidentifier():
            raise ValueError("a model is named by its folder below models/, in letters, digits and underscores")
        return name


def load_params() -> Params:
    """All of params.yaml. Raises ParameterError, naming each key that is wrong."""
    return read_yaml(PARAMS, Params, ParameterError)
