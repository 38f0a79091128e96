"""Declare metrics/NAME/validate/VARIANT.json."""

from typing import Annotated, ClassVar, Self

from onnx_release.core.metrics import Metric, Metrics
from onnx_release.core.yaml_files import Strict
from onnx_release.measure.closeness import Closeness


class OutputMetrics(Strict):
    """One output of a variant, over all cases."""

    max_abs_error: Annotated[float | None, Metric("this output's largest error", better="lower", news="error")]
    max_abs_error_torch: Annotated[float | None, Metric("PyTorch's own in float32")]
    max_rel_error: Annotated[
        float | None, Metric("this output's largest relative error", better="lower", news="relative error")
    ]
    sqnr_db: Annotated[float | None, Metric("this output's signal to error", unit="dB", better="higher", news="signal")]
    cosine: Annotated[float | None, Metric("this output's mean cosine", better="higher", news="signal")]
    worst_case: Annotated[str, Metric("the case with the largest error")]
    tolerance_needed: Annotated[
        float | None,
        Metric("the tolerance.atol that would pass at the tolerance.rtol of the spec", better="lower", news="error"),
    ]
    equal: Annotated[
        float | None, Metric("share of elements equal to PyTorch's, where they are whole numbers", better="higher")
    ] = None


class ValidateMetrics(Metrics):
    """How close a variant is to PyTorch. Fields with a default belong to one task only."""

    FILE: ClassVar[str] = "validate/*"

    passed: Annotated[
        bool, Metric("whether every output is within the tolerance, or the variant within its budget", better="higher")
    ]
    made: Annotated[bool, Metric("whether the variant could be made, and runs", better="higher")]
    failure: Annotated[str, Metric("why it was not made, or which output, which case, how far off; empty if passed")]
    cases: Annotated[int, Metric("evaluation samples and shape cases compared")]
    provider: Annotated[str, Metric("ONNX Runtime's execution provider")]
    provider_note: Annotated[str, Metric("why provider auto does not use the GPU; empty if it does")]
    max_abs_error: Annotated[
        float | None, Metric("largest error against PyTorch in float64", better="lower", news="error")
    ]
    max_rel_error: Annotated[
        float | None,
        Metric(
            "largest relative error, of elements over a thousandth of the largest",
            better="lower",
            news="relative error",
        ),
    ]
    error_vs_torch_rounding: Annotated[
        float | None, Metric("largest error, divided by PyTorch's own in float32", better="lower", news="error")
    ]
    sqnr_db: Annotated[
        float | None,
        Metric("signal to error against PyTorch in float64, over all cases", unit="dB", better="higher", news="signal"),
    ]
    cosine: Annotated[float | None, Metric("mean cosine with PyTorch in float64", better="higher", news="signal")]
    agreement: Annotated[
        float | None,
        Metric(
            "share of samples with PyTorch's class or neighbour, of boxes matched, or of equal whole numbers",
            better="higher",
            interval="agreement",
            column="agrees",
        ),
    ]
    agreement_low: Annotated[float | None, Metric("lower end of its interval, which resamples groups", better="higher")]
    agreement_high: Annotated[float | None, Metric("upper end of it", better="higher")]
    accuracy: Annotated[
        float | None,
        Metric(
            "share of labelled samples with the right answer; null without labels",
            better="higher",
            interval="accuracy",
            column="variant_right",
            news="accuracy",
        ),
    ]
    accuracy_low: Annotated[float | None, Metric("lower end of its interval, which resamples groups", better="higher")]
    accuracy_high: Annotated[float | None, Metric("upper end of it", better="higher")]
    accuracy_torch: Annotated[float | None, Metric("PyTorch's accuracy on the same samples", better="higher")]
    accuracy_drop: Annotated[
        float | None, Metric("accuracy lost compared with PyTorch", better="lower", column="drop", news="accuracy")
    ]
    labelled: Annotated[int, Metric("samples behind the accuracy; 0 without labels")]
    case_agreement: Annotated[
        float | None, Metric("boxes matched with PyTorch's in the worst shape case", better="higher")
    ] = None
    boxes: Annotated[int | None, Metric("objects that PyTorch finds on all samples")] = None
    matched_boxes: Annotated[int | None, Metric("how many of these are matched", better="higher")] = None
    box_iou: Annotated[float | None, Metric("mean overlap (IoU) of matched boxes", better="higher", column="iou")] = (
        None
    )
    score_error: Annotated[float | None, Metric("largest difference of scores of matched boxes", better="lower")] = None
    embedding_cosine: Annotated[
        float | None,
        Metric("mean cosine with PyTorch's embedding of the same sample", better="higher", column="cosine"),
    ] = None
    rank_correlation: Annotated[
        float | None,
        Metric(
            "Spearman's rank correlation of a sample's neighbours by distance",
            better="higher",
            column="rank_correlation",
        ),
    ] = None
    outputs: dict[str, OutputMetrics]

    @classmethod
    def not_made(cls, reason: str) -> Self:
        """Return the metrics of a variant that could not be made or does not run, with the reason."""
        names = [name for name, field in cls.model_fields.items() if field.is_required()]
        texts = {"passed": False, "made": False, "failure": f"it could not be made: {reason}", "provider": ""}
        counts = {"provider_note": "", "cases": 0, "labelled": 0, "outputs": {}}
        return cls.model_validate({**dict.fromkeys(names), **texts, **counts})

    @property
    def closeness(self) -> Closeness:
        """Return the metrics that a budget bounds."""
        return Closeness(self.sqnr_db, self.max_abs_error, self.cosine, self.agreement, self.accuracy_drop)
