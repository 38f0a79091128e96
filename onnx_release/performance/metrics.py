"""Define metrics/NAME/optimize.json and metrics/NAME/profile.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics
from onnx_release.core.yaml_files import Strict
from onnx_release.timing.speedup import Speedup

# How many times each of the two files is loaded, in turn.
LOADS = 15


class OptimizeMetrics(Metrics):
    """The file that ONNX Runtime has optimised for this CPU, and how much faster it loads."""

    FILE: ClassVar[str] = "optimize"

    variant: Annotated[str, Metric("the chosen variant", noise="decision")]
    load_ms_before: Annotated[float, Metric("time to load the variant, without imports", unit="ms", noise="load")]
    load_ms: Annotated[
        float,
        Metric("time to load the optimised file, with the check of the CPU", unit="ms", better="lower", noise="load"),
    ]
    speedup: Annotated[
        float,
        Metric("how many times as fast the optimised file loads", better="higher", noise="speedup", interval="speedup"),
    ]
    speedup_low: Annotated[float, Metric("lower end of its interval, over loads", better="higher")]
    speedup_high: Annotated[float, Metric("upper end of its interval", better="higher")]
    nodes_before: Annotated[int, Metric("nodes of the variant")]
    nodes: Annotated[int, Metric("nodes of the optimised graph", better="lower")]
    size_mb: Annotated[float, Metric("the optimised file, with external data", unit="MB", better="lower")]
    onnxruntime: Annotated[str, Metric("the only version that loads the optimised file")]

    def as_speedup(self) -> Speedup:
        """Return the speed-up of loading with its interval over loads, none of which counts as disturbed."""
        return Speedup(self.speedup, self.speedup_low, self.speedup_high)


class OperatorMetrics(Strict):
    """All nodes of one operator in a profiled call."""

    nodes: Annotated[int, Metric("nodes of this operator that ran")]
    ms: Annotated[float, Metric("their time in a call", unit="ms", better="lower", noise="profile")]
    share: Annotated[float, Metric("their share of the time of all nodes", noise="profile")]


class ProfileMetrics(Metrics):
    """The time of a call by operator."""

    FILE: ClassVar[str] = "profile"

    variant: Annotated[str, Metric("the chosen variant", noise="decision")]
    calls: Annotated[int, Metric("profiled calls; all times are means over them")]
    model_ms: Annotated[
        float, Metric("a call under the profiler, which slows it", unit="ms", better="lower", noise="profile")
    ]
    outside_ms: Annotated[
        float, Metric("the part of a call in which no node was running", unit="ms", better="lower", noise="profile")
    ]
    operators: dict[str, OperatorMetrics]
