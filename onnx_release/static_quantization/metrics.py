"""Declare metrics/NAME/quantize_static.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics


class QuantizeStaticMetrics(Metrics):
    """The statically quantized graph, and how close it is to the float model on calibration samples."""

    FILE: ClassVar[str] = "quantize_static"

    size_mb: Annotated[float, Metric("the model file, with external data", unit="MB", better="lower")]
    target: Annotated[str, Metric("kind of machine that the graph is made for")]
    weight_type: Annotated[str, Metric("type of a quantized weight")]
    activation_type: Annotated[str, Metric("type of a quantized activation")]
    reduce_range: Annotated[bool, Metric("whether weights are kept from saturating AVX2")]
    quantized_nodes: Annotated[int, Metric("nodes with 8-bit inputs", better="higher", news="layers")]
    float_nodes: Annotated[int, Metric("nodes without 8-bit inputs", better="lower", news="layers")]
    fused_nodes: Annotated[
        int, Metric("quantized nodes that ONNX Runtime runs on integers", better="higher", news="layers")
    ]
    unfused_nodes: Annotated[int, Metric("quantized nodes that it runs in float", better="lower", news="layers")]
    unfused: Annotated[str, Metric("their names, and why")]
    requantized_nodes: Annotated[int, Metric("float layers that ONNX Runtime quantizes by itself", better="lower")]
    requantized: Annotated[str, Metric("their names")]
    budget_met: Annotated[
        bool,
        Metric(
            "whether the search met the budget with a margin on calibration samples; validation decides",
            better="higher",
        ),
    ]
    budget_failure: Annotated[str, Metric("which bound it missed; empty if it was met")]
    float_layers: Annotated[str, Metric("layers that the search keeps in float")]
    float_operators: Annotated[str, Metric("types of operators without weights that it keeps in float, besides")]
    plain_layers: Annotated[
        str, Metric("layers whose weights are rounded one by one, since fitting them takes too much memory or work")
    ]
    fitted_graphs: Annotated[int, Metric("graphs whose weights the search fitted")]
    refined_ranges: Annotated[int, Metric("ranges that differ from the calibrated ones")]
    calibration_sqnr_db: Annotated[
        float | None, Metric("signal to error on calibration samples", unit="dB", better="higher")
    ]
    calibration_agreement: Annotated[float | None, Metric("calibration samples with the float answer", better="higher")]
