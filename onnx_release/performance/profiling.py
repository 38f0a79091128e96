"""Where a model's time goes: ONNX Runtime's profile of real samples, by operator and by node with its PyTorch module.

The profiler takes microseconds of its own a node, and cuts every time to whole ones: a profile tells how the time
is divided, the benchmark how long it is. A node that ONNX Runtime has fused into another has its time there; on a GPU a
node's time is that of handing its work over, and the wait for the work is outside of all nodes.
"""

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from onnx_release.core.errors import GraphError
from onnx_release.core.files import replacing
from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.graph.source_lines import file_and_line
from onnx_release.performance.metrics import OperatorMetrics, ProfileMetrics
from onnx_release.runtime.onnx_model import OnnxModel

# Calls before those that count: the first ones allocate memory and wake threads.
WARM_UP = 10
KERNEL = "_kernel_time"
# What ONNX Runtime computes within the convolution before it, and what it folds into that convolution.
ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
CONVOLUTIONS = ("Conv", "BatchNormalization")
# ONNX Runtime's own casts of a float16 value start with it, and so does what takes their place.
INSERTED_CAST = "InsertedPrecisionFreeCast_"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class NodeTime:
    """A node as ONNX Runtime runs it: how often, and its own time in ms. Both are means over the calls of the model.

    What runs within an If or a Loop has nodes of its own, and is no part of the time of the If or the Loop.
    """

    name: str
    operator: str
    runs: float
    ms: float


@dataclass(frozen=True)
class Timing:
    """Means over `calls` calls of the model, in ms; means, because they add up. The slowest node comes first.

    `model_ms` is a whole call, `outside_ms` what of it no node was running in. The nodes sum up to the rest; in the
    parallel execution mode they overlap, and sum up to more.
    """

    calls: int
    model_ms: float
    outside_ms: float
    nodes: tuple[NodeTime, ...]

    def share(self, ms: float) -> float:
        """The share of the time of all nodes."""
        total = sum(node.ms for node in self.nodes)
        return ms / total if total else 0.0


def profile_model(
    path: Path, spec: Spec, runtime: Runtime, batches: Sequence[Mapping[str, np.ndarray]], calls: int, trace: Path
) -> Timing:
    """Profile `calls` calls over the batches in turn, after WARM_UP others, and write ONNX Runtime's trace to `trace`.

    The trace holds the warm-up as well, and opens in chrome://tracing and Perfetto. Raises what OnnxModel raises, and
    GraphError if the trace does not hold every call; then nothing is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = OnnxModel(path, spec, runtime, Path(folder) / "trace")
        for call in range(WARM_UP + calls):
            model.run(batches[call % len(batches)])
        written = Path(model.session.end_profiling())
        timing = summarize(json.loads(written.read_text(encoding="utf-8")), WARM_UP, calls)
        with replacing(trace) as partial:
            shutil.move(written, partial)
    return timing


def summarize(events: Sequence[Event], warm_up: int, calls: int) -> Timing:
    """The figures of `calls` calls that come after `warm_up` others. Raises GraphError if a call is not there."""
    runs = sorted((event for event in events if event["name"] == "model_run"), key=start)
    if len(runs) != warm_up + calls:
        raise GraphError(
            f"the profile holds {len(runs)} of {warm_up + calls} calls, since ONNX Runtime stops at a million events: "
            "lower profile.calls"
        )
    counted = runs[warm_up:]
    nodes = [event for event in events if event["name"].endswith(KERNEL) and start(event) >= start(counted[0])]
    microseconds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event, own in zip(nodes, own_times(nodes), strict=True):
        microseconds[event["name"].removesuffix(KERNEL), event["args"]["op_name"]].append(own)
    times = [
        NodeTime(name, operator, len(own) / calls, sum(own) / calls / 1e3)
        for (name, operator), own in microseconds.items()
    ]
    whole = sum(event["dur"] for event in counted)
    return Timing(
        calls=calls,
        model_ms=whole / calls / 1e3,
        outside_ms=(whole - covered(nodes)) / calls / 1e3,
        nodes=tuple(sorted(times, key=lambda node: (-node.ms, node.name))),
    )


def own_times(events: Sequence[Event]) -> list[int]:
    """Microseconds of each event without those of the events on the same thread that started while it ran."""
    own = [int(event["dur"]) for event in events]
    running: dict[int, list[int]] = defaultdict(list)
    # Of two that start in the same microsecond the outer one is the later in the trace, which goes by the end.
    for index in sorted(range(len(events)), key=lambda i: (start(events[i]), -i)):
        event = events[index]
        outer = running[event["tid"]]
        while outer and end(events[outer[-1]]) <= start(event):
            outer.pop()
        if outer:
            own[outer[-1]] -= event["dur"]
        outer.append(index)
    return own


def covered(events: Sequence[Event]) -> int:
    """Microseconds in which at least one of the events ran, on any thread."""
    total = reached = 0
    for event in sorted(events, key=start):
        total += max(end(event) - max(start(event), reached), 0)
        reached = max(reached, end(event))
    return total


def start(event: Event) -> int:
    return int(event["ts"])


def end(event: Event) -> int:
    return int(event["ts"] + event["dur"])


def known_sources(exported: ModelProto, sources: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of sources.json by the name of the node, and by the names of the values that the node makes.

    ONNX Runtime and the quantizers call a node after a value where there is no node to call it after. The value of an
    activation stands for the convolution before it, into which ONNX Runtime fuses it.
    """
    makers = {value: node for node in exported.graph.node for value in node.output}
    by_value = {}
    for value, node in makers.items():
        before = makers.get(node.input[0]) if node.op_type in ACTIVATIONS else None
        maker = before if before is not None and before.op_type in CONVOLUTIONS else node
        if maker.name in sources:
            by_value[value] = sources[maker.name]
    return by_value | dict(sources)


def find_source(name: str, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry of `known_sources` for a node of the profile: the longest of its names that `name` continues.

    A name goes on with _ or /, but not with a number, which makes a sibling: n4_2 has nothing to do with n4. Empty if
    there is none, as for a change of layout that ONNX Runtime has put in.
    """
    name = name.removeprefix(INSERTED_CAST)
    for length in range(len(name), 0, -1):
        rest = name[length:]
        if name[:length] in known and (not rest or (rest[0] in "_/" and not rest[1:2].isdigit())):
            return known[name[:length]]
    return {}


def node_rows(timing: Timing, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """metrics/plots/profile.csv: a row for each node, the slowest first; `module` and `source` empty if unknown."""
    rows = []
    for node in timing.nodes:
        entry = find_source(node.name, known)
        rows.append(
            {
                "node": node.name,
                "operator": node.operator,
                "module": entry.get("module", ""),
                "source": file_and_line(entry),
                "runs": node.runs,
                "ms": node.ms,
                "share": timing.share(node.ms),
            }
        )
    return rows


def profile_metrics(timing: Timing, variant: str) -> ProfileMetrics:
    """What metrics/profile.json has: the whole call, and every operator."""
    by_operator: dict[str, list[float]] = defaultdict(list)
    for node in timing.nodes:
        by_operator[node.operator].append(node.ms)
    return ProfileMetrics(
        variant=variant,
        calls=timing.calls,
        model_ms=timing.model_ms,
        outside_ms=timing.outside_ms,
        operators={
            operator: OperatorMetrics(nodes=len(times), ms=sum(times), share=timing.share(sum(times)))
            for operator, times in by_operator.items()
        },
    )
