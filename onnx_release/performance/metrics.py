"""metrics/optimize.json and metrics/profile.json."""

from typing import Annotated, ClassVar

from onnx_release.core.metrics import Metric, Metrics
from onnx_release.core.yaml_files import Strict
from onnx_release.timing.speedup import Speedup


class OptimizeMetrics(Metrics):
    """The file as ONNX Runtime optimises it here, and how much sooner it is loaded."""

    FILE: ClassVar[str] = "optimize"

    variant: Annotated[str, Metric("the chosen variant", noise="decision")]
    load_ms_before: Annotated[float, Metric("time to load the variant, imports left out", unit="ms", noise="load")]
    load_ms: Annotated[
        float, Metric("as ONNX Runtime has optimised it, the CPU checked", unit="ms", better="lower", noise="load")
    ]
    speedup: Annotated[
        float, Metric("as many times as fast loaded", better="higher", noise="speedup", interval="speedup")
    ]
    speedup_low: Annotated[float, Metric("lower end of its interval, over loads", better="higher")]
    speedup_high: Annotated[float, Metric("upper end of it", better="higher")]
    nodes_before: Annotated[int, Metric("nodes of the variant")]
    nodes: Annotated[int, Metric("nodes of the optimised graph", better="lower")]
    size_mb: Annotated[float, Metric("the optimised file, with external data", unit="MB", better="lower")]
    onnxruntime: Annotated[str, Metric("the version that it is for, and no other")]

    def as_speedup(self) -> Speedup:
        """The speed-up of loading with its interval, over loads, of which none is disturbed."""
        return Speedup(self.speedup, self.speedup_low, self.speedup_high)


class OperatorMetrics(Strict):
    """All nodes of one operator in a profiled call."""

    nodes: Annotated[int, Metric("nodes of this operator that ran")]
    ms: Annotated[float, Metric("their time in a call", unit="ms", better="lower", noise="profile")]
    share: Annotated[float, Metric("their share of the time of all nodes", noise="profile")]


class ProfileMetrics(Metrics):
    """Where the time of a call goes."""

    FILE: ClassVar[str] = "profile"

    variant: Annotated[str, Metric("the chosen variant", noise="decision")]
    calls: Annotated[int, Metric("profiled calls; all times are means over them")]
    model_ms: Annotated[
        float, Metric("a call under the profiler, which slows it", unit="ms", better="lower", noise="profile")
    ]
    outside_ms: Annotated[
        float, Metric("what of it no node was running in", unit="ms", better="lower", noise="profile")
    ]
    operators: dict[str, OperatorMetrics]
