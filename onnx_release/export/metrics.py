"""Declare metrics/NAME/export.json and metrics/NAME/slim.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics


class ExportMetrics(Metrics):
    """The graph that an exporter made from the network."""

    FILE: ClassVar[str] = "export"

    opset: Annotated[int, Metric("opset that the file declares")]
    exporter: Annotated[str, Metric("exporter that made it")]
    capture: Annotated[str, Metric("how it was captured: strict, non-strict or trace")] = ""
    others: Annotated[str, Metric("why the other exporters and opsets were not taken")] = ""
    nodes: Annotated[int, Metric("nodes in the graph", better="lower")]
    optimized_nodes: Annotated[
        int | None, Metric("nodes once ONNX Runtime has optimised it at level extended", better="lower")
    ] = None
    parameters: Annotated[int, Metric("elements of all initializers, constants among them")]
    size_mb: Annotated[float, Metric("the model file, with external data", unit="MB", better="lower")]


class SlimMetrics(Metrics):
    """The exported graph before and after onnxslim."""

    FILE: ClassVar[str] = "slim"

    nodes_before: Annotated[int, Metric("nodes of the exported graph", better="lower", noise="by-product")]
    nodes_after: Annotated[int, Metric("nodes of the slimmed graph", better="lower")]
    size_mb_before: Annotated[
        float, Metric("size of the exported model", unit="MB", better="lower", noise="by-product")
    ]
    size_mb_after: Annotated[float, Metric("size of the slimmed model", unit="MB", better="lower")]
