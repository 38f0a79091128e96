"""Declare metrics/NAME/summary.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics


class SummaryMetrics(Metrics):
    """A few metrics of the released variant; all None if none is released."""

    FILE: ClassVar[str] = "summary"

    variant: Annotated[
        str | None,
        Metric("the released variant: of those that passed, the most exact of the fastest", noise="decision"),
    ]
    reason: Annotated[str, Metric("why it was chosen; empty if none is released", noise="by-product")]
    refused: Annotated[dict[str, str], Metric("why other variants may not be released, by name")]
    accuracy_drop: Annotated[
        float | None, Metric("its accuracy lost compared with PyTorch", better="lower", column="drop")
    ]
    agreement: Annotated[float | None, Metric("its agreement with PyTorch", better="higher", column="agrees")]
    speedup_vs_eager: Annotated[
        float | None,
        Metric("its speed-up over torch eager; null if not measured", better="higher", noise="speedup", news="time"),
    ]
    speedup_vs_compile: Annotated[
        float | None, Metric("the same, over torch.compile", better="higher", noise="speedup", news="time")
    ]
    not_measured: Annotated[str, Metric("why a speed-up was not measured; empty if both were")]
    size_mb: Annotated[float | None, Metric("its size", unit="MB", better="lower", news="size")]
    compression: Annotated[
        float | None, Metric("size of the export, divided by its size", better="higher", news="size")
    ]
