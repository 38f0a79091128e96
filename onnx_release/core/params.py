"""Read the parameters: one pydantic model for each section. An unknown key or a bad value ends the stage and is named.

params.yaml has the defaults of all models, models/NAME/params.yaml the values that are a model's own.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from onnx_release.core.errors import ParameterError
from onnx_release.core.files import read_made, write_text
from onnx_release.core.paths import PARAMS, ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import Strict, load_yaml, validate_made, validate_yaml

# Every number has a lower and an upper bound: tests/core/test_params.py checks it. Beyond the upper bound a value is a
# slip that would fill the memory or run for days before anybody sees it.
Samples = Annotated[int, Field(ge=1, le=1_000_000)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
# ONNX Runtime starts all of them when it loads a model. The largest machines have about as many cores.
Threads = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # the range of numpy and torch
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Device = Annotated[int, Field(ge=0, le=255)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]
# Metrics are only compared with these bounds, so any value that a metric may have is allowed.
MetricBound = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
AllowedLoss = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]

# 13 is the first opset whose QuantizeLinear works per channel. The upper ends are torch 2.13's
# ONNX_MAX_OPSET and ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET.
OPSETS = {"dynamo": range(13, 24), "torchscript": range(13, 21)}
# The section of artifacts/NAME/params.json with the model's spec.yaml, and what is apart from the rest of it there.
SPEC = "spec"
SPEC_PARTS = ("sources", "variants", "exclude", "budget", "tolerance")
# With fewer calibration samples, a range often comes from a single sample.
ENOUGH_TO_CALIBRATE = 16


class Prepare(Strict):
    """The largest number of samples of each split."""

    calibration: Samples
    evaluation: Samples


class Reference(Strict):
    """The seed for the draw of the samples that fill the shape cases."""

    seed: Seed


class Export(Strict):
    """The exporter and the opset."""

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

    @property
    def other_exporter(self) -> str:
        """Return the exporter to try if this one fails."""
        return "torchscript" if self.exporter == "dynamo" else "dynamo"


class Slim(Strict):
    """Fusions to skip, and how far the answers of the slimmed graph may be from the exported one's."""

    skip_fusion_patterns: list[str]
    atol: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    rtol: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]  # at more than 1, zeros would pass for any answer


class Fp16(Strict):
    """Operators that stay in float32, and the largest magnitude of a float16 weight; larger ones are clamped."""

    block_operators: list[str]
    max_finite_val: Annotated[float, Field(gt=0, le=65504, allow_inf_nan=False)]


class QuantizeDynamic(Strict):
    """The operators whose weights are quantized."""

    operators: Annotated[list[str], Field(min_length=1)]


class Calibrate(Strict):
    """How the range of every activation is found. Only the method of that name reads `percentile`."""

    method: Literal["minmax", "percentile", "entropy", "mse"]
    percentile: Annotated[float, Field(gt=50, le=100, allow_inf_nan=False)]
    bins: Annotated[int, Field(ge=128, le=16_384)]  # the time of `entropy` grows with their square
    chunk: Samples


class QuantizeStatic(Strict):
    """The kind of machine, and how much the search for the fastest graph within the model's budget may compute.

    `minutes` is an amount of computing on two cores, not of time, so that a slow machine gives the same bytes.
    """

    target: Literal["auto", "avx2", "vnni", "arm64", "tensorrt"]
    minutes: Annotated[float, Field(gt=0, le=1440, allow_inf_nan=False)]


class Validate(Strict):
    """How the confidence intervals are computed."""

    resamples: Annotated[int, Field(ge=100, le=100_000)]  # each draws all groups, and all are in memory at once
    confidence: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    seed: Seed


class Cuda(Strict):
    """Options of ONNX Runtime's CUDA provider; `gpu_mem_limit` in bytes, null for no limit.

    ONNX Runtime turns `use_tf32` on. It is off here, since with it float32 is less close to PyTorch than it can be.
    """

    device_id: Device = 0
    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] = "kNextPowerOfTwo"
    gpu_mem_limit: Bytes | None = None
    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] = "EXHAUSTIVE"
    use_tf32: bool = False


class TensorRt(Strict):
    """Options of the TensorRT provider: `workspace` in bytes, and a folder for built engines, or null.

    `int8` is for a quantized model (microsoft/onnxruntime#13381).
    """

    device_id: Device = 0
    workspace: Bytes = 2**30
    fp16: bool = False
    int8: bool = False
    engine_cache: str | None = None


class Runtime(Strict):
    """How ONNX Runtime runs a model, in validation, in the benchmark and in production.

    With `intra_threads` null it uses every core that the process may use, within a container's quota. Only the
    parallel execution mode reads `inter_threads`. The defaults are ONNX Runtime's.
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
    """The settings that are timed, and for how long; `threads` null means every core.

    Every pair of a batch size and a thread count is timed. The metrics that everything else reads are those of the
    first batch size and the first thread count. Another `replicate` makes a run that is not in the run cache.
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
    """The number of calls to profile."""

    calls: Annotated[int, Field(ge=1, le=10_000)]  # the trace has a line for every node of every call


class Gate(Strict):
    """A bound that `python -m tools.gate` checks on the metrics named `metric`, FILE.KEY with * for any name.

    `min` and `max` bound the value itself. `max_regression`, in the metric's own unit, and `max_regression_share`, a
    share of the base's value, bound the change from a base. `noisy` says whether the gate passes if the noise is too
    large to tell. onnx_release/review/gates.py checks the name, so that no stage depends on the table of metrics.
    """

    metric: str
    min: MetricBound | None = None
    max: MetricBound | None = None
    max_regression: AllowedLoss | None = None
    max_regression_share: AllowedLoss | None = None
    noisy: Literal["fail", "pass"] = "fail"

    @model_validator(mode="after")
    def one_bound(self) -> "Gate":
        bounds = ("min", "max", "max_regression", "max_regression_share")
        if sum(getattr(self, name) is not None for name in bounds) != 1:
            raise ValueError(f"the gate on {self.metric} needs one of {', '.join(bounds)}")
        return self

    @property
    def relative(self) -> bool:
        """Return whether it needs a base to compare with."""
        return self.max_regression is not None or self.max_regression_share is not None


class Params(Strict):
    """The parameters that the stages of a model read, from artifacts/NAME/params.json."""

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


class ParamsAndGates(Params):
    """All of params.yaml. No stage reads the gates."""

    gates: list[Gate]


def load_params(files: ModelFiles) -> Params:
    """Read the model's parameters as the stage `settings` wrote them.

    Raises DataError if it has not run, or if the file is damaged or of another version of the stages.
    """
    content = read_made(files.params, "JSON", parse_mapping)
    content.pop(SPEC, None)
    return validate_made(files.params.as_posix(), content, Params, files.model)


def parse_mapping(text: str) -> dict[str, Any]:
    """Return the keys of a text in JSON. Raises ValueError if it has none."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return content


def load_defaults() -> ParamsAndGates:
    """Read params.yaml. Raises ParameterError, naming each key that is wrong."""
    content = load_yaml(PARAMS, ParameterError)
    if isinstance(content, dict) and "model" in content:
        raise ParameterError(
            f"{PARAMS} has the key model, and there is none now: models.yaml lists the models, and "
            "`make repro MODEL=NAME` runs one of them. Remove the key"
        )
    return validate_yaml(PARAMS, content, ParamsAndGates, ParameterError)


def merge_params(files: ModelFiles) -> ParamsAndGates:
    """Return params.yaml with the values of models/NAME/params.yaml, where a list replaces a list.

    Raises ParameterError, naming each key that is wrong in either file.
    """
    defaults, own = load_defaults().model_dump(by_alias=True), load_overrides(files)
    return validate_yaml(files.overrides, overlay(defaults, own), ParamsAndGates, ParameterError)


def load_overrides(files: ModelFiles) -> Any:
    """Read models/NAME/params.yaml; a model without the file has no values of its own, although DVC asks for one."""
    if not files.overrides.exists():
        return {}
    return load_yaml(files.overrides, ParameterError, if_empty="write `{}` for a model without values of its own, or ")


def write_params(files: ModelFiles, params: ParamsAndGates, spec: Spec) -> None:
    """Write what the model's stages depend on, whole or not at all: its parameters without the gates, and its spec.

    The spec has the parts that change for different reasons, each with its defaults, since DVC refuses a missing key.
    It is JSON, since DVC reads it for every stage, and JSON takes less time than YAML.
    """
    declared = spec.model_dump(by_alias=True, mode="json")
    parts = {name: declared.pop(name) for name in SPEC_PARTS}
    content = params.model_dump(by_alias=True, exclude={"gates"}) | {SPEC: {"network": declared, **parts}}
    write_text(files.params, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def overlay(defaults: Any, own: Any) -> Any:
    """Return `defaults` with the values of `own` in place of its own, key by key within mappings."""
    if not (isinstance(defaults, Mapping) and isinstance(own, Mapping)):
        return own
    both = {key: overlay(value, own[key]) if key in own else value for key, value in defaults.items()}
    return both | {key: value for key, value in own.items() if key not in defaults}
