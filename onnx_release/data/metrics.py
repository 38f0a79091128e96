"""Declare metrics/NAME/prepare.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics


class PrepareMetrics(Metrics):
    """How many samples there are, and how many independent groups they come from."""

    FILE: ClassVar[str] = "prepare"

    calibration_samples: Annotated[int, Metric("samples to calibrate with")]
    calibration_groups: Annotated[int, Metric("photographs, patients or documents they come from")]
    evaluation_samples: Annotated[int, Metric("samples to evaluate on")]
    evaluation_groups: Annotated[int, Metric("photographs, patients or documents they come from")]
    evaluation_labelled: Annotated[int, Metric("evaluation samples whose right answer is known")]
