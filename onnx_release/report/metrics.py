"""Every metric that a stage writes: unit, direction and meaning. Report, gates, comparison and docs read this table."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]
# What moves a figure when nothing but the measuring is done again. "" is what comes out the same each time; "decision",
# what is chosen by timings; "by-product", what comes of how the measuring went or is said by other figures, and is not
# compared. The others are kinds of timings, for each of which onnx_release/review/noise.py has an allowance.
Noise = Literal[
    "",
    "latency",
    "speedup",
    "fastest",
    "tail",
    "spread",
    "load",
    "memory",
    "preparation",
    "profile",
    "wall",
    "decision",
    "by-product",
]


@dataclass(frozen=True)
class Metric:
    """`file` is the metrics file without .json, `key` the dotted path in it; a * stands for any name.

    A figure with an `interval` has its ends beside it, under that name with _low and _high. `column` is the column of
    metrics/plots/validate/VARIANT.csv whose mean over the samples it is; "drop" is torch_right less variant_right.
    `news` is what the figure tells of its variant: of those with the same news, a comment shows the first in the table.
    """

    file: str
    key: str
    unit: str
    better: Better
    meaning: str
    noise: Noise = ""
    interval: str = ""
    column: str = ""
    news: str = ""

    @property
    def name(self) -> str:
        """FILE.KEY, as comparison and gates call it."""
        return f"{self.file}.{self.key}"

    @property
    def is_end(self) -> bool:
        """Whether it is an end of another figure's interval."""
        return self.key.endswith(("_low", "_high"))


METRICS = (
    Metric("prepare", "calibration_samples", "", "neither", "samples to calibrate with"),
    Metric("prepare", "calibration_groups", "", "neither", "photographs, patients or documents they come from"),
    Metric("prepare", "evaluation_samples", "", "neither", "samples to evaluate on"),
    Metric("prepare", "evaluation_groups", "", "neither", "photographs, patients or documents they come from"),
    Metric("prepare", "evaluation_labelled", "", "neither", "evaluation samples whose right answer is known"),
    Metric("export", "opset", "", "neither", "opset that the file itself declares"),
    Metric("export", "exporter", "", "neither", "exporter that made it"),
    Metric("export", "nodes", "", "lower", "nodes in the graph"),
    Metric("export", "parameters", "", "neither", "elements of all initializers, constants among them"),
    Metric("export", "size_mb", "MB", "lower", "the model file, with external data"),
    Metric("slim", "nodes_before", "", "lower", "nodes of the exported graph", noise="by-product"),
    Metric("slim", "nodes_after", "", "lower", "nodes of the slimmed graph"),
    Metric("slim", "size_mb_before", "MB", "lower", "size of the exported model", noise="by-product"),
    Metric("slim", "size_mb_after", "MB", "lower", "size of the slimmed model"),
    Metric("fp16", "size_mb", "MB", "lower", "the model file, with external data"),
    Metric("fp16", "fp16_nodes", "", "higher", "nodes that give float16, Casts apart", news="nodes"),
    Metric("fp16", "float_nodes", "", "lower", "nodes that give float32, Casts apart", news="nodes"),
    Metric("fp16", "casts", "", "lower", "Casts in the graph"),
    Metric("fp16", "blocked_nodes", "", "lower", "nodes kept in float32 because a value beyond float16 showed up"),
    Metric("fp16", "blocked", "", "neither", "their names"),
    Metric("fp16", "clamped_weights", "", "lower", "weights beyond fp16.max_finite_val"),
    Metric("quantize_dynamic", "size_mb", "MB", "lower", "the model file, with external data"),
    Metric("quantize_dynamic", "quantized_nodes", "", "higher", "nodes that multiply integers"),
    Metric("quantize_dynamic", "float_nodes", "", "neither", "nodes of the float model that stay as they were"),
    Metric("quantize_dynamic", "weight_type", "", "neither", "type of a quantized weight"),
    Metric("quantize_dynamic", "reduce_range", "", "neither", "whether weights have 7 bits, as AVX2 needs"),
    Metric("calibrate", "method", "", "neither", "how ranges are chosen"),
    Metric("calibrate", "samples", "", "neither", "samples that the ranges come from"),
    Metric("calibrate", "equalized_values", "", "neither", "values whose channels were brought closer in size"),
    Metric("calibrate", "tensors", "", "neither", "activations with a range"),
    Metric("calibrate", "constant_tensors", "", "neither", "activations that never change; theirs is widened"),
    Metric("calibrate", "clipped_share", "", "neither", "values outside of their range"),
    Metric("quantize_static", "size_mb", "MB", "lower", "the model file, with external data"),
    Metric("quantize_static", "target", "", "neither", "kind of machine that it is made for"),
    Metric("quantize_static", "weight_type", "", "neither", "type of a quantized weight"),
    Metric("quantize_static", "activation_type", "", "neither", "type of a quantized activation"),
    Metric("quantize_static", "reduce_range", "", "neither", "whether weights are kept from saturating AVX2"),
    Metric("quantize_static", "quantized_nodes", "", "higher", "nodes that take 8-bit data", news="layers"),
    Metric("quantize_static", "float_nodes", "", "lower", "nodes that take none", news="layers"),
    Metric(
        "quantize_static",
        "fused_nodes",
        "",
        "higher",
        "quantized nodes that ONNX Runtime runs on integers",
        news="layers",
    ),
    Metric("quantize_static", "unfused_nodes", "", "lower", "quantized nodes that it runs in float", news="layers"),
    Metric("quantize_static", "unfused", "", "neither", "their names, and why"),
    Metric("quantize_static", "requantized_nodes", "", "lower", "float layers that ONNX Runtime quantizes by itself"),
    Metric("quantize_static", "requantized", "", "neither", "their names"),
    Metric(
        "quantize_static",
        "budget_met",
        "",
        "higher",
        "whether the search met the budget on calibration samples, margin included; no verdict",
    ),
    Metric("quantize_static", "budget_failure", "", "neither", "which bound it missed; empty if met"),
    Metric("quantize_static", "float_layers", "", "neither", "layers that the search keeps in float"),
    Metric("quantize_static", "fitted_graphs", "", "neither", "graphs whose weights the search fitted"),
    Metric("quantize_static", "refined_ranges", "", "neither", "ranges that are not as calibrated"),
    Metric("quantize_static", "calibration_sqnr_db", "dB", "higher", "signal to error on calibration samples"),
    Metric("quantize_static", "calibration_agreement", "", "higher", "calibration samples with the float answer"),
    Metric("validate/*", "passed", "", "higher", "whether every output is within its bound, or the budget is kept"),
    Metric("validate/*", "failure", "", "neither", "which output, which case, how far off; empty if passed"),
    Metric("validate/*", "cases", "", "neither", "evaluation samples and shape cases compared"),
    Metric("validate/*", "provider", "", "neither", "ONNX Runtime's execution provider"),
    Metric("validate/*", "provider_note", "", "neither", "what provider auto had to do without; empty if nothing"),
    Metric("validate/*", "max_abs_error", "", "lower", "largest error against PyTorch in float64", news="error"),
    Metric(
        "validate/*",
        "max_rel_error",
        "",
        "lower",
        "the same, relative; elements over a thousandth of the largest",
        news="relative error",
    ),
    Metric(
        "validate/*",
        "error_vs_torch_rounding",
        "",
        "lower",
        "largest error in units of PyTorch's own in float32",
        news="error",
    ),
    Metric(
        "validate/*",
        "sqnr_db",
        "dB",
        "higher",
        "signal to error against PyTorch in float64, over all cases",
        news="signal",
    ),
    Metric("validate/*", "cosine", "", "higher", "mean cosine with PyTorch in float64", news="signal"),
    Metric(
        "validate/*",
        "agreement",
        "",
        "higher",
        "samples with PyTorch's class or neighbour; boxes matched with its",
        interval="agreement",
        column="agrees",
    ),
    Metric("validate/*", "agreement_low", "", "higher", "lower end of its interval, which resamples groups"),
    Metric("validate/*", "agreement_high", "", "higher", "upper end of it"),
    Metric(
        "validate/*",
        "accuracy",
        "",
        "higher",
        "labelled samples answered rightly; null without labels",
        interval="accuracy",
        column="variant_right",
        news="accuracy",
    ),
    Metric("validate/*", "accuracy_low", "", "higher", "lower end of its interval, which resamples groups"),
    Metric("validate/*", "accuracy_high", "", "higher", "upper end of it"),
    Metric("validate/*", "accuracy_torch", "", "higher", "the same samples, answered by PyTorch"),
    Metric("validate/*", "accuracy_drop", "", "lower", "accuracy lost against PyTorch", column="drop", news="accuracy"),
    Metric("validate/*", "labelled", "", "neither", "samples behind the accuracy; 0 without labels"),
    Metric("validate/*", "case_agreement", "", "higher", "boxes matched with PyTorch's in the worst shape case"),
    Metric("validate/*", "boxes", "", "neither", "objects that PyTorch finds on all samples"),
    Metric("validate/*", "matched_boxes", "", "higher", "of these, how many are matched"),
    Metric("validate/*", "box_iou", "", "higher", "mean overlap (IoU) of matched boxes", column="iou"),
    Metric("validate/*", "score_error", "", "lower", "largest difference of scores of matched boxes"),
    Metric(
        "validate/*",
        "embedding_cosine",
        "",
        "higher",
        "mean cosine with PyTorch's embedding of the same sample",
        column="cosine",
    ),
    Metric(
        "validate/*",
        "rank_correlation",
        "",
        "higher",
        "Spearman's, of a sample's neighbours by nearness",
        column="rank_correlation",
    ),
    Metric("*", "left_out", "", "neither", "there only where the model's spec leaves the variant out"),
    Metric("validate/*", "outputs.*.max_abs_error", "", "lower", "this output's largest error", news="error"),
    Metric("validate/*", "outputs.*.max_abs_error_torch", "", "neither", "PyTorch's own in float32"),
    Metric(
        "validate/*",
        "outputs.*.max_rel_error",
        "",
        "lower",
        "this output's largest relative error",
        news="relative error",
    ),
    Metric("validate/*", "outputs.*.sqnr_db", "dB", "higher", "this output's signal to error", news="signal"),
    Metric("validate/*", "outputs.*.cosine", "", "higher", "this output's mean cosine", news="signal"),
    Metric("validate/*", "outputs.*.worst_case", "", "neither", "the case with the largest error"),
    Metric(
        "validate/*",
        "outputs.*.tolerance_needed",
        "",
        "lower",
        "the tolerance.atol that would pass at the tolerance.rtol of the spec",
        news="error",
    ),
    Metric("benchmark", "machine", "", "neither", "where it ran; timings compare only on the same one"),
    Metric("benchmark", "provider", "", "neither", "ONNX Runtime's execution provider on this machine"),
    Metric("benchmark", "provider_note", "", "neither", "why a GPU that is here is not used; empty otherwise"),
    Metric("benchmark", "copies", "", "neither", "whether copies to a GPU and back are included, on both sides"),
    Metric("benchmark", "batch", "", "neither", "items a call"),
    Metric("benchmark", "threads", "", "neither", "threads for every contender"),
    Metric("benchmark", "starts", "", "neither", "times that all contenders were started anew"),
    Metric("benchmark", "rounds", "", "neither", "rounds in all, in each of which every contender has a turn"),
    Metric(
        "benchmark",
        "*repeated_rounds",  # of the first setting, and of the others below settings
        "",
        "lower",
        "rounds taken again, since other work used the cores",
        noise="by-product",
    ),
    Metric(
        "benchmark",
        "*disturbed_rounds",
        "",
        "lower",
        "rounds that count although other work used the cores",
        noise="by-product",
    ),
    Metric("benchmark", "wall_s", "s", "lower", "time that the benchmark took", noise="wall"),
    Metric(
        "benchmark", "calling_s", "s", "neither", "what of it went into the calls that are reported", noise="by-product"
    ),
    Metric(
        "benchmark",
        "loading_s",
        "s",
        "neither",
        "into loading, and into first runs of first starts",
        noise="by-product",
    ),
    Metric(
        "benchmark",
        "overhead",
        "",
        "lower",
        "the share of the rest: starting, warming up, gaps, repeated rounds",
        noise="by-product",
    ),
    Metric(
        "benchmark", "preparation.decode_ms", "ms", "lower", "median time to decode a raw item", noise="preparation"
    ),
    Metric(
        "benchmark", "preparation.preprocess_ms", "ms", "lower", "median time to preprocess it", noise="preparation"
    ),
    Metric("benchmark", "preparation.raw_items", "", "neither", "raw items; without any, the times are null"),
    Metric("benchmark", "*.failure", "", "neither", "why it could not be measured; empty if it was"),
    Metric("benchmark", "*.provider", "", "neither", "what ran it"),
    Metric("benchmark", "*.provider_note", "", "neither", "what provider auto had to do without; empty if nothing"),
    Metric("benchmark", "*.latency_ms.median", "ms", "lower", "median time of a call", noise="latency", news="time"),
    Metric("benchmark", "*.latency_ms.mean", "ms", "lower", "mean time of a call", noise="latency", news="time"),
    Metric("benchmark", "*.latency_ms.std", "ms", "lower", "standard deviation", noise="spread", news="time"),
    Metric("benchmark", "*.latency_ms.min", "ms", "lower", "fastest call", noise="fastest", news="time"),
    Metric("benchmark", "*.latency_ms.max", "ms", "lower", "slowest call", noise="spread", news="time"),
    Metric(
        "benchmark",
        "*.latency_ms.p95",
        "ms",
        "lower",
        "95th percentile; null under 200 samples",
        noise="tail",
        news="time",
    ),
    Metric(
        "benchmark",
        "*.latency_ms.p99",
        "ms",
        "lower",
        "99th percentile; null under 1,000 samples",
        noise="tail",
        news="time",
    ),
    Metric("benchmark", "*.samples", "", "neither", "timed calls", noise="by-product"),
    Metric(
        "benchmark",
        "*.throughput_per_s",
        "1/s",
        "higher",
        "items a second, one call after the other",
        noise="latency",
        news="time",
    ),
    Metric(
        "benchmark",
        "*.speedup_vs_eager",
        "",
        "higher",
        "median over rounds of torch eager's time by this one's",
        interval="speedup",
        noise="speedup",
        news="time",
    ),
    Metric("benchmark", "*.speedup_low", "", "higher", "lower end of its 95 % interval, over starts and rounds"),
    Metric("benchmark", "*.speedup_high", "", "higher", "upper end of it"),
    Metric(
        "benchmark",
        "*.speedup_vs_compile",
        "",
        "higher",
        "the same, over torch.compile",
        interval="speedup_vs_compile",
        noise="speedup",
        news="time",
    ),
    Metric("benchmark", "*.speedup_vs_compile_low", "", "higher", "lower end of its interval"),
    Metric("benchmark", "*.speedup_vs_compile_high", "", "higher", "upper end of it"),
    Metric(
        "benchmark",
        "*.no_difference_from",
        "",
        "neither",
        "contenders that may be as fast: the interval holds 1, or nothing was measured",
        noise="by-product",
    ),
    Metric(
        "benchmark",
        "*.load_ms",
        "ms",
        "lower",
        "from the file to ready, imports left out; median over starts",
        noise="load",
    ),
    Metric(
        "benchmark",
        "*.first_run_ms",
        "ms",
        "lower",
        "the first call of the first start, compilation included; measured once, and so not compared",
        noise="by-product",
    ),
    Metric(
        "benchmark",
        "*.peak_memory_mb",
        "MB",
        "lower",
        "most resident memory of a process that keeps what it frees",
        noise="memory",
    ),
    Metric("tune", "variant", "", "neither", "the chosen variant", noise="decision"),
    Metric("tune", "failure", "", "neither", "why settings could not be tried; empty if they could, or were not to be"),
    Metric("tune", "kept", "", "neither", "settings that made it faster, and are released with it", noise="decision"),
    Metric("tune", "untried", "", "neither", "settings that tune.seconds left no time for", noise="by-product"),
    Metric(
        "tune",
        "trials.*.speedup",
        "",
        "higher",
        "as many times as fast with this setting as without it",
        interval="speedup",
        noise="speedup",
    ),
    Metric("tune", "trials.*.speedup_low", "", "higher", "lower end of its interval; above 1, it is kept if measured"),
    Metric("tune", "trials.*.speedup_high", "", "higher", "upper end of it"),
    Metric("tune", "trials.*.rounds", "", "neither", "rounds that it was timed in"),
    Metric("tune", "trials.*.disturbed_rounds", "", "lower", "of these, how many were disturbed", noise="by-product"),
    Metric("tune", "trials.*.kept", "", "neither", "whether it is released", noise="decision"),
    Metric("tune", "trials.*.failure", "", "neither", "why the model did not run with it; empty if it did"),
    Metric("optimize", "variant", "", "neither", "the chosen variant", noise="decision"),
    Metric("optimize", "load_ms_before", "ms", "neither", "time to load the variant, imports left out", noise="load"),
    Metric("optimize", "load_ms", "ms", "lower", "as ONNX Runtime has optimised it, the CPU checked", noise="load"),
    Metric("optimize", "speedup", "", "higher", "as many times as fast loaded", interval="speedup", noise="speedup"),
    Metric("optimize", "speedup_low", "", "higher", "lower end of its interval, over loads"),
    Metric("optimize", "speedup_high", "", "higher", "upper end of it"),
    Metric("optimize", "nodes_before", "", "neither", "nodes of the variant"),
    Metric("optimize", "nodes", "", "lower", "nodes of the optimised graph"),
    Metric("optimize", "size_mb", "MB", "lower", "the optimised file, with external data"),
    Metric("optimize", "onnxruntime", "", "neither", "the version that it is for, and no other"),
    Metric("profile", "variant", "", "neither", "the chosen variant", noise="decision"),
    Metric("profile", "calls", "", "neither", "profiled calls; all times are means over them"),
    Metric("profile", "model_ms", "ms", "lower", "a call under the profiler, which slows it", noise="profile"),
    Metric("profile", "outside_ms", "ms", "lower", "what of it no node was running in", noise="profile"),
    Metric("profile", "operators.*.nodes", "", "neither", "nodes of this operator that ran"),
    Metric("profile", "operators.*.ms", "ms", "lower", "their time in a call", noise="profile"),
    Metric("profile", "operators.*.share", "", "neither", "their share of the time of all nodes", noise="profile"),
    Metric(
        "summary", "variant", "", "neither", "of those that passed, the most exact of the fastest", noise="decision"
    ),
    Metric("summary", "accuracy_drop", "", "lower", "its accuracy lost against PyTorch", column="drop"),
    Metric("summary", "agreement", "", "higher", "its agreement with PyTorch", column="agrees"),
    Metric(
        "summary",
        "speedup_vs_eager",
        "",
        "higher",
        "its speed-up over torch eager; null if not measured",
        noise="speedup",
        news="time",
    ),
    Metric("summary", "speedup_vs_compile", "", "higher", "the same, over torch.compile", noise="speedup", news="time"),
    Metric("summary", "not_measured", "", "neither", "why a speed-up was not measured; empty if both were"),
    Metric("summary", "size_mb", "MB", "lower", "its size", news="size"),
    Metric("summary", "compression", "", "higher", "size of the export by its size", news="size"),
)


def metric(file: str, key: str) -> Metric:
    """The metric at the dotted `key` of metrics/`file`.json. Raises KeyError if the table does not have it."""
    for item in METRICS:
        if fnmatchcase(file, item.file) and fnmatchcase(key, item.key):
            return item
    raise KeyError(f"{file}: {key} is not in onnx_release/report/metrics.py")


def known_metric(file: str, key: str) -> Metric:
    """The row of the table; one without direction for a key that this version does not know."""
    try:
        return metric(file, key)
    except KeyError:
        return Metric(file, key, "", "neither", "not in the table of this version")


def nearest_names(name: str, count: int = 3) -> list[str]:
    """Those names of figures, FILE.KEY as the table has them, that are most like `name`."""
    return difflib.get_close_matches(name, [item.name for item in METRICS], n=count, cutoff=0)


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested metrics."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
