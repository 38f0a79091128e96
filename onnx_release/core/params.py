"""params.yaml: one pydantic model a section. An unknown key or a bad value ends the stage and is named."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from onnx_release.core.errors import ParameterError
from onnx_release.core.paths import PARAMS
from onnx_release.core.yaml_files import Strict, read_yaml

# Every number has both ends: tests/core/test_params.py holds it. An upper end is where more is a slip, and would fill
# the memory or run for days before anybody sees it.
Samples = Annotated[int, Field(ge=1, le=1_000_000)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
# ONNX Runtime starts all of them as it loads a model: about as many as the largest machines have cores.
Threads = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what numpy and torch both take
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Device = Annotated[int, Field(ge=0, le=255)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]
# Figures are compared with these and no more, so that any that a metric may have will do.
Figure = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]

# 13 is the first opset whose QuantizeLinear works per channel. The upper ends are torch 2.13's
# ONNX_MAX_OPSET and ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET.
OPSETS = {"dynamo": range(13, 24), "torchscript": range(13, 21)}
# Samples to calibrate with, below which a range is often that of one sample.
ENOUGH_TO_CALIBRATE = 16


class Prepare(Strict):
    """How many samples of each split to take, at most."""

    calibration: Samples
    evaluation: Samples


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
    atol: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    rtol: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]  # within 1, zeros would pass for any answer


class Fp16(Strict):
    """Operators that stay in float32, and the largest magnitude that a float16 weight may keep."""

    block_operators: list[str]
    max_finite_val: Annotated[float, Field(gt=0, le=65504, allow_inf_nan=False)]


class QuantizeDynamic(Strict):
    operators: Annotated[list[str], Field(min_length=1)]


class Calibrate(Strict):
    """How the range of every activation is found. `percentile` is read by that method alone."""

    method: Literal["minmax", "percentile", "entropy", "mse"]
    percentile: Annotated[float, Field(gt=50, le=100, allow_inf_nan=False)]
    bins: Annotated[int, Field(ge=128, le=16_384)]  # what `entropy` takes grows with their square
    chunk: Samples


class QuantizeStatic(Strict):
    """What machine it is for, and how much the search for the fastest graph within the model's budget may work.

    `minutes` is of work on two cores, not of time, so that a slow day gives the same bytes.
    """

    target: Literal["auto", "avx2", "vnni", "arm64", "tensorrt"]
    minutes: Annotated[float, Field(gt=0, le=1440, allow_inf_nan=False)]


class Validate(Strict):
    """How the intervals are made."""

    resamples: Annotated[int, Field(ge=100, le=100_000)]  # each draws all groups, and all are in memory at once
    confidence: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    seed: Seed


class Cuda(Strict):
    """Options of ONNX Runtime's CUDA provider; `gpu_mem_limit` in bytes, null for no limit.

    `use_tf32` is on in ONNX Runtime, and off here: with it, float32 is not as close to PyTorch as float32 can be.
    """

    device_id: Device = 0
    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] = "kNextPowerOfTwo"
    gpu_mem_limit: Bytes | None = None
    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] = "EXHAUSTIVE"
    use_tf32: bool = False


class TensorRt(Strict):
    """Options of the TensorRT provider: `workspace` in bytes, and a folder to keep built engines in, or null.

    `int8` is for a model that is quantized (microsoft/onnxruntime#13381).
    """

    device_id: Device = 0
    workspace: Bytes = 2**30
    fp16: bool = False
    int8: bool = False
    engine_cache: str | None = None


class Runtime(Strict):
    """How ONNX Runtime runs a model, in validation, in the benchmark and in production.

    `intra_threads` null is every core that the process may use, a container's quota counted. `inter_threads` is read
    in the parallel execution mode alone. The defaults are ONNX Runtime's.
    """

    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    cuda: Cuda = Cuda()
    tensorrt: TensorRt = TensorRt()
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    execution_mode: Literal["sequential", "parallel"] = "sequential"
    intra_threads: Threads | None = None
    inter_threads: Threads | None = None
    spinning: bool = True
    arena: bool = True
    memory_pattern: bool = True
    denormals_as_zero: bool = False


class Benchmark(Strict):
    """What is timed and for how long; `threads` null means every core.

    Every pair of a batch size and a thread count is measured, the first of each for the figures that everything else
    reads. Another `replicate` makes a run that the run cache does not know.
    """

    batches: Annotated[list[Batch], Field(min_length=1)]
    threads: Annotated[list[Threads | None], Field(min_length=1)]
    starts: Annotated[int, Field(ge=1, le=100)]
    rounds: Annotated[int, Field(ge=5, le=1000)]
    turn_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)]
    settle_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)]
    timeout_seconds: Seconds
    seed: Seed
    replicate: Seed


class Profile(Strict):
    """How many calls to profile."""

    calls: Annotated[int, Field(ge=1, le=10_000)]  # the trace has a line for every node of every call


class Gate(Strict):
    """A bound that `python -m tools.gate` holds on the figures named `metric`, FILE.KEY with * for any name.

    `min` and `max` hold by themselves; `max_regression`, in the figure's own unit, and `max_regression_share`, of the
    base's figure, hold against a base. `noisy` is what comes of a gate that the noise is too large for.
    onnx_release/review/gates.py checks the name, so that no stage depends on the table of figures for it.
    """

    metric: str
    min: Figure | None = None
    max: Figure | None = None
    max_regression: Loss | None = None
    max_regression_share: Loss | None = None
    noisy: Literal["fail", "pass"] = "fail"

    @model_validator(mode="after")
    def one_bound(self) -> "Gate":
        bounds = ("min", "max", "max_regression", "max_regression_share")
        if sum(getattr(self, name) is not None for name in bounds) != 1:
            raise ValueError(f"the gate on {self.metric} needs one of {', '.join(bounds)}")
        return self

    @property
    def relative(self) -> bool:
        """Whether it needs a base to hold against."""
        return self.max_regression is not None or self.max_regression_share is not None


class Params(Strict):
    model: str
    prepare: Prepare
    reference: Reference
    export: Export
    slim: Slim
    fp16: Fp16
    quantize_dynamic: QuantizeDynamic
    calibrate: Calibrate
    quantize_static: QuantizeStatic
    validate_: Validate = Field(alias="validate")
    runtime: Runtime
    benchmark: Benchmark
    profile: Profile
    gates: list[Gate]

    @field_validator("model")
    @classmethod
    def plain_name(cls, name: str) -> str:
        if not name.isidentifier():
            raise ValueError("a model is named by its folder below models/, in letters, digits and underscores")
        return name


def load_params() -> Params:
    """All of params.yaml. Raises ParameterError, naming each key that is wrong."""
    return read_yaml(PARAMS, Params, ParameterError)
