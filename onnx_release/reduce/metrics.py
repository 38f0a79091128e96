"""Declare fp16.json, quantize_dynamic.json and calibrate.json in metrics/NAME/."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics


class Fp16Metrics(Metrics):
    """The graph in float16."""

    FILE: ClassVar[str] = "fp16"

    size_mb: Annotated[float, Metric("the model file, with external data", unit="MB", better="lower")]
    fp16_nodes: Annotated[int, Metric("nodes with float16 outputs, without Casts", better="higher", news="nodes")]
    float_nodes: Annotated[int, Metric("nodes with float32 outputs, without Casts", better="lower", news="nodes")]
    casts: Annotated[int, Metric("Casts in the graph", better="lower")]
    blocked_nodes: Annotated[int, Metric("nodes kept in float32 because of a value beyond float16", better="lower")]
    blocked: Annotated[str, Metric("their names")]
    clamped_weights: Annotated[int, Metric("weights beyond fp16.max_finite_val", better="lower")]


class QuantizeDynamicMetrics(Metrics):
    """The dynamically quantized graph."""

    FILE: ClassVar[str] = "quantize_dynamic"

    size_mb: Annotated[float, Metric("the model file, with external data", unit="MB", better="lower")]
    quantized_nodes: Annotated[int, Metric("nodes that multiply integers", better="higher")]
    float_nodes: Annotated[int, Metric("nodes of the float model that stay as they were")]
    weight_type: Annotated[str, Metric("type of a quantized weight")]
    reduce_range: Annotated[bool, Metric("whether weights have 7 bits, as AVX2 needs")]


class CalibrateMetrics(Metrics):
    """The ranges of the activations."""

    FILE: ClassVar[str] = "calibrate"

    method: Annotated[str, Metric("how ranges are chosen")]
    samples: Annotated[int, Metric("samples that the ranges come from")]
    equalized_values: Annotated[int, Metric("values whose channels were brought closer in size")]
    equalize_failure: Annotated[str, Metric("why none was, although some could be; else empty")] = ""
    tensors: Annotated[int, Metric("activations with a range")]
    constant_tensors: Annotated[int, Metric("activations that never change; their range is widened")]
    clipped_share: Annotated[float, Metric("values outside of their range")]
    boundless: Annotated[str, Metric("activations without a range, with infinity or NaN as in masks")] = ""
