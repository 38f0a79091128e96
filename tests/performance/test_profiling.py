"""The profile: times worked out by hand for made-up events, and those of tiny graphs. No test reads a clock."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from onnx_release.core.errors import GraphError, InputError
from onnx_release.core.files import read_json, write_json, write_text
from onnx_release.core.params import Profile, Runtime, load_defaults, write_params
from onnx_release.core.paths import ModelFiles
from onnx_release.performance.profiling import (
    WARM_UP,
    NodeTime,
    Timing,
    find_source,
    known_sources,
    node_rows,
    profile_metrics,
    profile_model,
    summarize,
)
from stages import profile
from tests.imports import ROOT
from tests.samples import save_samples

ON_CPU = Runtime(provider="cpu", intra_threads=1)
DATA = """
def samples(raw, split):
    yield from ()

def preprocess(item):
    return {"x": item}

def postprocess(outputs):
    return outputs
"""


def node(name, operator, start, length, thread=1):
    times = {"ts": start, "dur": length, "tid": thread}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": operator}, **times}


def call(start, length):
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": length, "tid": 1, "args": {}}


def node_times(timing):
    return {item.name: (item.operator, item.runs, round(item.ms * 1e3, 6)) for item in timing.nodes}


def test_times_are_means_over_the_calls_after_the_warm_up():
    """In microseconds: the calls take 100 and 80, `a` 30 and 20, `b` 50 and 30; 40 + 10 are in neither."""
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 90, "tid": 1, "args": {}},
        *(node("a", "Conv", 110, 800), call(100, 900)),
        *(node("a", "Conv", 2010, 30), node("b", "Relu", 2045, 50), call(2000, 100)),
        *(node("a", "Conv", 3010, 20), node("b", "Relu", 3040, 30), call(3000, 80)),
    ]
    timing = summarize(events, warm_up=1, calls=2)
    assert node_times(timing) == {"b": ("Relu", 1, 40), "a": ("Conv", 1, 25)}
    assert [item.name for item in timing.nodes] == ["b", "a"]
    assert timing.calls == 2
    assert (timing.model_ms, timing.outside_ms) == pytest.approx((0.09, 0.025))


def test_what_runs_inside_an_if_is_not_counted_twice():
    """The If takes 80 and its nodes 30 + 20 of them; the Loop takes 60, all of it in three turns of its body."""
    events = [
        *(node("x", "MatMul", 20, 30), node("y", "Relu", 55, 20), node("choose", "If", 10, 80)),
        *(node("body", "Add", 100, 20), node("body", "Add", 120, 20), node("body", "Add", 140, 20)),
        *(node("repeat", "Loop", 100, 60), call(0, 200)),
    ]
    timing = summarize(events, warm_up=0, calls=1)
    assert node_times(timing) == {
        "body": ("Add", 3, 60),
        "choose": ("If", 1, 30),
        "x": ("MatMul", 1, 30),
        "y": ("Relu", 1, 20),
        "repeat": ("Loop", 1, 0),
    }
    assert timing.outside_ms == pytest.approx(0.06)


def test_an_if_within_an_if_loses_only_its_own_nodes():
    events = [node("deep", "Exp", 20, 10), node("inner", "If", 15, 20), node("outer", "If", 10, 60), call(0, 100)]
    assert node_times(summarize(events, 0, 1)) == {
        "outer": ("If", 1, 40),
        "deep": ("Exp", 1, 10),
        "inner": ("If", 1, 10),
    }


def test_an_if_is_told_from_its_node_where_both_take_the_same_microseconds():
    events = [node("x", "MatMul", 10, 20), node("choose", "If", 10, 20), node("y", "Exp", 30, 5), call(0, 50)]
    assert node_times(summarize(events, 0, 1)) == {"x": ("MatMul", 1, 20), "y": ("Exp", 1, 5), "choose": ("If", 1, 0)}


def test_nodes_that_overlap_on_two_threads_are_outside_of_none_of_it():
    events = [node("a", "Conv", 10, 50, thread=2), node("b", "Conv", 20, 50, thread=3), call(0, 70)]
    timing = summarize(events, 0, 1)
    assert node_times(timing) == {"a": ("Conv", 1, 50), "b": ("Conv", 1, 50)}
    assert timing.outside_ms == pytest.approx(0.01)


def test_a_trace_that_ends_too_soon_is_an_error():
    events = [node("a", "Conv", 10, 30), call(0, 50), node("a", "Conv", 110, 30)]
    with pytest.raises(GraphError, match=r"has 1 of 2 calls.*lower profile\.calls"):
        summarize(events, warm_up=1, calls=1)


TIMING = Timing(
    calls=4,
    model_ms=10.5,
    outside_ms=0.5,
    nodes=(NodeTime("a", "Conv", 1, 6.0), NodeTime("b", "Relu", 1, 3.0), NodeTime("c_token_4", "Conv", 2, 1.0)),
)


def test_metrics_are_by_operator():
    assert profile_metrics(TIMING, "fp32").content() == {
        "variant": "fp32",
        "calls": 4,
        "model_ms": 10.5,
        "outside_ms": 0.5,
        "operators": {
            "Conv": {"nodes": 2, "ms": 7.0, "share": 0.7},
            "Relu": {"nodes": 1, "ms": 3.0, "share": 0.3},
        },
    }


def test_rows_are_by_node_with_module_and_source():
    known = {"a": {"module": "block.0", "file": "network.py", "line": 3}, "c": {"module": "m", "file": None}}
    rows = node_rows(TIMING, known)
    assert [tuple(row.values()) for row in rows] == [
        ("a", "Conv", "block.0", "network.py:3", 1, 6.0, 0.6),
        ("b", "Relu", "", "", 1, 3.0, 0.3),
        ("c_token_4", "Conv", "m", "", 2, 1.0, 0.1),
    ]
    assert list(rows[0]) == ["node", "operator", "module", "source", "runs", "ms", "share"]


def test_nodes_that_all_take_less_than_a_microsecond_have_no_share():
    timing = summarize([node("a", "Neg", 10, 0), call(0, 50)], 0, 1)
    assert [row["share"] for row in node_rows(timing, {})] == [0.0]


def small_network(save_graph, name="model.onnx"):
    """conv, relu, conv, add; the channels are enough for ONNX Runtime's blocked layout."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(32, 3, 3, 3)).astype(np.float32),
        "v": random.normal(size=(32, 32, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["first"], name="n4"),
        helper.make_node("Relu", ["first"], ["bent"], name="n4_2"),
        helper.make_node("Conv", ["bent", "v"], ["second"], name="node_Conv_7"),
        helper.make_node("Add", ["second", "bent"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["y"], name="last"),
    ]
    return save_graph(nodes, [("x", ["batch", 3, 8, 8])], [("y", ["batch", 32, 6, 6])], weights, name)


SOURCE = {
    "n4": {"module": "block.0", "file": "network.py", "line": 3},
    "n4_2": {"module": "block.1", "file": "network.py", "line": 4},
    "node_Conv_7": {"module": "block.2", "file": "network.py", "line": 5},
    "add": {"module": "block", "file": "network.py", "line": 6},
    "last": {"module": "block.3", "file": "network.py", "line": 7},
}


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 32, 6, 6]}, batch=(1, 4, 2))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("node_Conv_7", "block.2"),
        ("node_Conv_7_token_163", "block.2"),
        ("n4_2_quant_scales_mul", "block.1"),
        ("n4/MatMulAddFusion", "block.0"),
        ("n4_3", ""),
        ("n45", ""),
        ("bent_nchwc", "block.0"),
        ("second_nchwc_token_8", "block.2"),
        ("InsertedPrecisionFreeCast_second_nchwc", "block.2"),
        ("sum_DequantizeLinear", "block"),
        ("y_QuantizeLinear", "block.3"),
        ("x_QuantizeLinear", ""),
        ("ReorderOutput_token_2", ""),
    ],
)
def test_names_that_were_changed_lead_to_the_module(save_graph, name, module):
    known = known_sources(onnx.load(small_network(save_graph)), SOURCE)
    assert find_source(name, known).get("module", "") == module


def test_the_longest_of_the_known_names_counts():
    known = {"attention": {"module": "block"}, "attention_out": {"module": "block.out"}}
    assert find_source("attention_out_quant", known) == {"module": "block.out"}
    assert find_source("attention_outer", known) == {"module": "block"}


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_convolutions_have_their_module_at_every_optimization_level(save_graph, tmp_path, spec, level):
    """ONNX Runtime fuses and renames more at each; what it calls a node depends on the CPU."""
    path = small_network(save_graph)
    runtime = ON_CPU.model_copy(update={"graph_optimization": level})
    timing = profile_model(path, spec, runtime, [{"x": np.ones((2, 3, 8, 8), np.float32)}], 2, tmp_path / "trace.json")
    rows = node_rows(timing, known_sources(onnx.load(path), SOURCE))
    modules = sorted(row["module"] for row in rows if "Conv" in row["operator"])
    assert modules == ["block.0", "block.2"]


def test_every_node_of_a_model_is_in_the_profile_and_the_trace_is_kept(save_graph, tmp_path, spec):
    trace = tmp_path / "profile/trace.json"
    runtime = ON_CPU.model_copy(update={"graph_optimization": "disabled"})
    batches = [{"x": np.ones((size, 3, 8, 8), np.float32)} for size in (1, 2, 3)]
    timing = profile_model(small_network(save_graph), spec, runtime, batches, 5, trace)
    assert {(item.name, item.operator, item.runs) for item in timing.nodes} == {
        ("n4", "Conv", 1),
        ("n4_2", "Relu", 1),
        ("node_Conv_7", "Conv", 1),
        ("add", "Add", 1),
        ("last", "Relu", 1),
    }
    assert {name: entry.nodes for name, entry in profile_metrics(timing, "fp32").operators.items()} == {
        "Conv": 2,
        "Relu": 2,
        "Add": 1,
    }
    assert sum(item.ms for item in timing.nodes) + timing.outside_ms == pytest.approx(timing.model_ms)
    events = json.loads(trace.read_text())
    assert sum(event["name"] == "model_run" for event in events) == WARM_UP + 5
    sizes = [
        event["args"]["input_type_shape"][0]["float"][0] for event in events if event["name"] == "last_kernel_time"
    ]
    assert sizes == [batch % 3 + 1 for batch in range(WARM_UP + 5)]
    assert list(trace.parent.iterdir()) == [trace]


def test_a_call_that_fails_leaves_no_trace(save_graph, tmp_path, spec):
    trace = tmp_path / "profile/trace.json"
    with pytest.raises(InputError, match="x has the shape"):
        profile_model(small_network(save_graph), spec, ON_CPU, [{"x": np.ones((1, 2), np.float32)}], 1, trace)
    assert not trace.parent.exists()


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_the_nodes_of_a_branch_add_up_with_their_if(save_graph, make_spec, tmp_path, mode):
    """Counted twice, the branch would make the nodes longer than the time in which any of them ran.

    The two may differ by the microseconds that ONNX Runtime cuts from its times.
    """

    def branch(name, operator):
        nodes = [
            helper.make_node("MatMul", ["x", "w"], [f"{name}_product"], name=f"{name}_matmul"),
            helper.make_node(operator, [f"{name}_product"], [f"{name}_out"], name=f"{name}_last"),
        ]
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], name="total", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], name="greater"),
        helper.make_node(
            "If", ["positive"], ["z"], name="if", then_branch=branch("then", "Relu"), else_branch=branch("else", "Neg")
        ),
        helper.make_node("Exp", ["z"], ["y"], name="exp"),
    ]
    weights = {"w": np.full((256, 256), 0.01, np.float32), "zero": np.array(0, np.float32)}
    path = save_graph(nodes, [("x", ["batch", 256])], [("y", ["batch", 256])], weights)
    spec = make_spec({"x": ["batch", 256]}, {"y": ["batch", 256]}, batch=(1, 256, 2))
    batches = [{"x": np.full((256, 256), sign, np.float32)} for sign in (1, -1)]
    runtime = ON_CPU.model_copy(update={"execution_mode": mode, "inter_threads": 2})
    timing = profile_model(path, spec, runtime, batches, 4, tmp_path / "trace.json")
    assert {item.name: (item.operator, item.runs) for item in timing.nodes} == {
        "total": ("ReduceSum", 1),
        "greater": ("Greater", 1),
        "if": ("If", 1),
        "exp": ("Exp", 1),
        "then_matmul": ("MatMul", 0.5),
        "then_last": ("Relu", 0.5),
        "else_matmul": ("MatMul", 0.5),
        "else_last": ("Neg", 0.5),
    }
    assert sum(item.ms for item in timing.nodes) == pytest.approx(timing.model_ms - timing.outside_ms, abs=0.005)


def test_the_stage_profiles_the_chosen_variant(save_graph, tmp_path, spec, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load_defaults()
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("small")
    for variant in ("export", "fp32"):
        small_network(save_graph, files.variant(variant).as_posix())
    write_json(files.sources, SOURCE)
    write_json(files.choice, {"variant": "fp32"})
    files.evaluation_samples.parent.mkdir(parents=True)
    save_samples(files.evaluation_samples, [np.full((3, 8, 8), value, np.float32) for value in range(5)])
    benchmark = params.benchmark.model_copy(update={"batches": [2, 4]})
    changed = {"runtime": ON_CPU, "benchmark": benchmark, "profile": Profile(calls=3)}
    write_params(files, params.model_copy(update=changed), spec)
    write_json(files.spec, spec.model_dump(by_alias=True, exclude_unset=True))  # which YAML reads, too
    write_text(files.folder / "data.py", DATA)
    profile.main(files.model)
    found = read_json(files.metrics / "profile.json")
    rows = pd.read_csv(files.plots / "profile.csv", keep_default_na=False)
    assert (found["variant"], found["calls"]) == ("fp32", 3)
    assert len(rows) == sum(operator["nodes"] for operator in found["operators"].values())
    assert {"block.0", "block.2"} <= set(rows["module"])
    assert rows["ms"].is_monotonic_decreasing
    events = read_json(files.trace)
    runs = [event for event in events if event["name"] == "model_run"]
    assert len(runs) == WARM_UP + 3
