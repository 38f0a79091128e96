"""params.yaml: one pydantic model a section. An unknown key or a bad value ends the stage and is named."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from onnx_release.errors import ParameterError
from onnx_release.paths import PARAMS
from onnx_release.yaml_files import Strict, read_yaml

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
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


class Budget(Strict):
    """What a variant with fewer bits may lose against PyTorch; null is no bound. `minutes` bounds the search's work."""

    agreement: Share | None
    accuracy_drop: Share | None
    sqnr_db: Finite | None
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def something_bound(self) -> "Budget":
        if self.agreement is None and self.accuracy_drop is None and self.sqnr_db is None:
            raise ValueError("bounds nothing: give agreement, accuracy_drop or sqnr_db")
        return self


class Fp16(Strict):
    """Operators that stay in float32, and the largest magnitude that a float16 weight may keep."""

    block_operators: list[str]
    max_finite_val: Annotated[float, Field(gt=0, le=65504)]


class QuantizeDynamic(Strict):
    operators: Annotated[list[str], Field(min_length=1)]


class Calibrate(Strict):
    """How the range of every activation is found. `percentile` is read by that method alone."""

    method: Literal["minmax", "percentile", "entropy", "mse"]
    percentile: Annotated[float, Field(gt=50, le=100)]
    bins: Annotated[int, Field(ge=128)]
    chunk: Count


class QuantizeStatic(Strict):
    target: Literal["auto", "avx2", "vnni", "arm64", "tensorrt"]


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
    budget: Budget
    fp16: Fp16
    quantize_dynamic: QuantizeDynamic
    calibrate: Calibrate
    quantize_static: QuantizeStatic
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
