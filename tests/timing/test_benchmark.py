"""The harness: who is measured how often, what is made of it, and what becomes of who fails.

No timing is looked at: `python -m benchmarks.one_model_twice` asks whether the harness sees differences where there are
none, and tests/timing/test_speedup.py asks the same of its intervals.
"""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnx_release.core.errors import BenchmarkError, ParameterError
from onnx_release.core.params import Benchmark, Runtime, load_defaults
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import VARIANTS, variant_files
from onnx_release.timing.benchmark import (
    Measurement,
    Run,
    benchmark_metrics,
    check_settings,
    contender_metrics,
    latency_rows,
    measure,
    paired_speedup,
    settings,
    time_spent,
)
from onnx_release.timing.conditions import Conditions
from onnx_release.timing.contenders import Contender, all_contenders, onnx_contenders
from onnx_release.timing.metrics import PreparationMetrics
from onnx_release.timing.speedup import TOO_WIDE, Speedup
from onnx_release.timing.worker import ContenderProcess, Loaded, worker_environment
from tests.bad_graphs import endless_for_zeros, insatiable
from tests.imports import ROOT

PARAMS = Benchmark(
    batches=[2], threads=[1], starts=1, rounds=5, turn_seconds=0.001, settle_seconds=0, timeout_seconds=60, seed=0,
    replicate=0,
)  # fmt: skip
RUNTIME = Runtime(provider="cpu", intra_threads=1)
BATCHES = [{"x": np.ones((2, 3), np.float32)}, {"x": np.zeros((2, 3), np.float32)}]


@pytest.fixture
def contender(save_graph, make_spec, tmp_path):
    """A contender of this name whose model has these nodes from x [batch, 3] to y [batch, 3]."""
    spec = make_spec({"x": ["batch", 3]}, {"y": ["batch", 3]}, batch=(1, 8, 2))

    def make(name, *nodes):
        nodes = nodes or (helper.make_node("Relu", ["x"], ["y"]),)
        path = save_graph(list(nodes), [("x", ["batch", 3])], [("y", ["batch", 3])], name=f"{name}.onnx")
        return Contender(name, "onnx", str(path), tmp_path, spec, RUNTIME)

    return make


def test_every_contender_has_a_turn_in_each_round_of_each_start(contender):
    run = measure([contender("a"), contender("b")], BATCHES, PARAMS.model_copy(update={"starts": 2}))
    assert list(run.measurements) == ["a", "b"]
    for item in run.measurements.values():
        assert item.failure == ""
        assert len(item.rounds) == 10
        assert all(turn and min(turn) > 0 for turn in item.rounds)
        assert len(item.loaded) == 2
        assert item.peak_memory > 10e6  # a Python process with numpy is more
    spent = time_spent([run])
    assert 0 < spent["overhead"] < 1
    assert spent["wall_s"] > spent["calling_s"] + spent["loading_s"] > spent["calling_s"] > 0


def test_every_process_of_a_run_is_started_in_the_environment_of_the_harness(contender, monkeypatch):
    entered = []

    @contextmanager
    def environment():
        entered.append(True)
        with worker_environment():
            yield

    monkeypatch.setattr("onnx_release.timing.benchmark.worker_environment", environment)
    measure([contender("a")], BATCHES, PARAMS)
    assert entered == [True]


def test_what_fails_has_a_row_that_says_so_and_the_others_are_measured(contender, tmp_path):
    gone = contender("gone")
    (tmp_path / "gone.onnx").unlink()
    entries = [
        gone,
        contender("a"),
        contender("nan", helper.make_node("Div", ["x", "x"], ["y"])),
    ]  # 0 / 0 in the second batch
    run = measure(entries, BATCHES, PARAMS.model_copy(update={"starts": 2}))
    figures = contender_metrics(run, 2, PARAMS)
    assert "gone.onnx" in figures["gone"].failure
    assert figures["nan"].failure == "ValueError: the outputs have NaN"
    for name in ("gone", "nan"):
        texts = ("failure", "no_difference_from", "latency_ms")
        assert {value for key, value in figures[name] if key not in texts} == {None, 0}  # no samples
        assert {value for _, value in figures[name].latency_ms} == {None}
    assert figures["a"].failure == ""
    assert (figures["a"].provider, figures["a"].provider_note) == ("CPUExecutionProvider", "")
    assert len(run.measurements["a"].rounds) == 10
    assert {row["variant"] for row in latency_rows(run)} == {"a"}


def test_a_crash_a_hang_and_a_lack_of_memory_have_a_row_and_the_others_are_measured(contender, monkeypatch):
    asked = ContenderProcess.ask

    def ask(worker, *request):
        if worker.name == "crashes" and request[0] == "turn":
            os.kill(worker.process.pid, signal.SIGSEGV)
        if worker.name == "hangs":
            worker.timeout = 0.5
        return asked(worker, *request)

    monkeypatch.setattr(ContenderProcess, "ask", ask)
    entries = [contender("crashes"), contender("hangs", *endless_for_zeros()), contender("a")]
    entries.append(contender("hungry", *insatiable()))
    figures = contender_metrics(measure(entries, BATCHES, PARAMS), 2, PARAMS)
    assert figures["crashes"].failure == "it crashed with signal 11"
    assert figures["hangs"].failure.startswith("it gave no answer within 0.5 s")
    assert "alloc" in figures["hungry"].failure.lower()
    assert figures["a"].failure == ""
    assert figures["a"].latency_ms.median


def test_an_error_if_all_fail(contender, tmp_path):
    entry = contender("gone")
    (tmp_path / "gone.onnx").unlink()
    with pytest.raises(BenchmarkError, match=r"no contender could be measured:\n  gone: GraphError: .*gone\.onnx"):
        measure([entry], BATCHES, PARAMS)


def test_an_error_if_there_are_none():
    with pytest.raises(BenchmarkError, match="there is nothing to time"):
        measure([], BATCHES, PARAMS)


def test_no_variant_at_all_is_an_error_and_a_missing_one_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    with pytest.raises(BenchmarkError, match="no variant: run `make repro MODEL=net`"):
        variant_files(files)
    (tmp_path / "artifacts/net/fp32").mkdir(parents=True)
    (tmp_path / "artifacts/net/fp32/model.onnx").touch()
    assert list(variant_files(files)) == ["fp32"]


@pytest.mark.parametrize(
    ("section", "changed", "says"),
    [
        ("benchmark", {"batches": [1, 9]}, "benchmark.batches has 9, where the spec declares batch from 1 to 8"),
        ("benchmark", {"threads": [1, 3]}, "benchmark.threads has 3, but this process may use 2 cores"),
        ("runtime", {"intra_threads": 3}, "runtime.intra_threads has 3, but this process may use 2 cores"),
    ],
    ids=["a batch", "threads", "threads of the runtime"],
)
def test_what_cannot_be_timed_is_refused(contender, monkeypatch, section, changed, says):
    monkeypatch.chdir(ROOT)
    spec, params = contender("a").spec, load_defaults()
    check_settings(params, spec, cores=2)
    with pytest.raises(ParameterError, match=says):
        bad = getattr(params, section).model_copy(update=changed)
        check_settings(params.model_copy(update={section: bad}), spec, cores=2)


@pytest.mark.parametrize(
    ("quiet_after", "repeated", "counted"),
    [(0, 0, 0), (1, 1, 0), (100, 2, 5)],  # never disturbed; one round; always, where half as many are repeated
)
def test_disturbed_rounds_are_taken_again_up_to_a_limit(contender, monkeypatch, quiet_after, repeated, counted):
    asked = ContenderProcess.ask
    turns = iter(range(1000))

    def ask(worker, *request):
        answer = asked(worker, *request)
        return replace(answer, disturbed=next(turns) < quiet_after) if request[0] == "turn" else answer

    monkeypatch.setattr(ContenderProcess, "ask", ask)
    run = measure([contender("a")], BATCHES, PARAMS)
    assert (run.repeated, run.disturbed) == (repeated, counted)
    assert len(run.measurements["a"].rounds) == 5


def done(rounds, load=0.5, first=0.01, memory=250_000_000):
    return Measurement([Loaded(load, first)], rounds, memory)


def alone(item, batch=1):
    """The metrics of a contender that is timed without any other."""
    return contender_metrics(Run({"a": item}, 1.0), batch, PARAMS)["a"]


def test_figures_by_hand():
    figures = alone(done([[0.001, 0.003], [0.002, 0.002], [0.004, 0.006]]), batch=2)
    assert figures.latency_ms.median == pytest.approx(2.5)
    assert figures.latency_ms.mean == pytest.approx(3.0)
    assert figures.latency_ms.std == pytest.approx(np.sqrt((4 + 0 + 1 + 1 + 1 + 9) / 6))
    assert figures.latency_ms.min == pytest.approx(1.0)
    assert figures.latency_ms.max == pytest.approx(6.0)
    assert figures.latency_ms.p95 is None
    assert figures.latency_ms.p99 is None
    assert figures.samples == 6
    assert figures.throughput_per_s == pytest.approx(2 / 0.003)  # two items a call
    assert figures.load_ms == pytest.approx(500)
    assert figures.first_run_ms == pytest.approx(10)
    assert figures.peak_memory_mb == pytest.approx(250)


def test_loading_is_the_median_over_starts_and_the_first_run_that_of_the_first():
    loaded = [Loaded(0.2, 20.0), Loaded(0.1, 1.0), Loaded(0.9, 1.0)]
    figures = alone(Measurement(loaded, [[1.0]], 1))
    assert (figures.load_ms, figures.first_run_ms) == (pytest.approx(200), pytest.approx(20_000))


def test_a_speed_up_is_paired_by_rounds():
    # Rounds give 4 / 2, 6 / 2 and 15 / 5, by their medians.
    base, own = done([[0.004], [0.006], [0.015]]), done([[0.001, 0.003], [0.002, 0.002], [0.004, 0.006]])
    speedup, low, high = paired_speedup(base, own, PARAMS)  # type: ignore[misc]
    assert speedup == pytest.approx(3.0)
    assert low < 3.0 < high
    for missing in (Measurement(failure="x"), None):
        assert paired_speedup(missing, own, PARAMS) is None


def test_speed_ups_are_over_eager_and_over_compile():
    run = Run({"torch_eager": done([[0.008]] * 5), "torch_compile": done([[0.004]] * 5), "a": done([[0.001]] * 5)}, 1.0)
    figures = contender_metrics(run, 1, PARAMS)
    own = figures["a"]
    assert (own.speedup_vs_eager, own.speedup_low, own.speedup_high) == pytest.approx((8, 8, 8))
    compiled = own.speedup_vs_compile, own.speedup_vs_compile_low, own.speedup_vs_compile_high
    assert compiled == pytest.approx((4, 4, 4))
    assert figures["torch_eager"].speedup_vs_compile == pytest.approx(0.5)


def test_contenders_whose_interval_holds_1_are_named():
    ratios = [1.0, 1.1, 0.9, 1.05, 0.95]
    run = Run(
        {
            "torch_eager": done([[0.008 * ratio] for ratio in ratios]),
            "a": done([[0.001]] * 5),
            "b": done([[0.001 * ratio] for ratio in ratios]),
            "c": Measurement(failure="it hangs"),
        },
        1.0,
    )
    found = {name: item.no_difference_from for name, item in contender_metrics(run, 1, PARAMS).items()}
    assert found == {"torch_eager": "", "a": "b", "b": "a", "c": ""}


def test_a_contender_that_is_faster_in_every_round_is_set_apart_though_nobody_knows_how_much_faster():
    """Or noise would let the pipeline release a variant that takes several times as long."""
    run = Run({"a": done([[0.001]] * 5), "b": done([[0.001 * by] for by in (4, 10, 30, 6, 20)])}, 1.0)
    found = paired_speedup(run.measurements["b"], run.measurements["a"], PARAMS)
    assert found is not None and Speedup(*found).doubt == TOO_WIDE
    assert contender_metrics(run, 1, PARAMS)["a"].no_difference_from == ""


def test_disturbed_rounds_set_nothing_apart():
    contenders = {"torch_eager": done([[0.008]] * 5), "a": done([[0.001]] * 5)}
    apart, disturbed = (contender_metrics(Run(contenders, 1.0, disturbed=rounds), 1, PARAMS) for rounds in (2, 3))
    assert apart["a"].no_difference_from == ""
    assert disturbed["a"].no_difference_from == "torch_eager"


def test_a_high_percentile_needs_enough_samples():
    turn = (np.arange(1000) / 1e3).tolist()
    figures = alone(done([turn])).latency_ms
    assert figures.p95 == pytest.approx(949.05)
    assert figures.p99 == pytest.approx(989.01)
    fewer = alone(done([turn[:999]])).latency_ms
    assert fewer.p95 is not None
    assert fewer.p99 is None
    assert alone(done([turn[:199]])).latency_ms.p95 is None


def test_the_overhead_is_the_time_of_what_is_not_reported():
    loaded = [Loaded(0.25, 0.5), Loaded(0.25, 9.0)]  # the second first run is no result
    one = Run({"a": Measurement(loaded, [[1.0, 2.0], [1.0]], 1)}, wall_seconds=20.0)
    assert time_spent([one]) == pytest.approx({"wall_s": 20, "calling_s": 4, "loading_s": 1, "overhead": 0.75})
    failed = Measurement([Loaded(0.5, 0.5)], [[3.0]], failure="it hangs")
    two = Run({"a": done([[14.0]], load=0.5, first=0.5), "b": failed}, 20.0)
    assert time_spent([one, two]) == pytest.approx({"wall_s": 40, "calling_s": 18, "loading_s": 2, "overhead": 0.5})


def test_every_pair_of_a_batch_and_a_thread_count_is_measured_once(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load_defaults()

    def found(threads, intra=None):
        return settings(
            params.model_copy(
                update={
                    "benchmark": params.benchmark.model_copy(update={"batches": [8, 1, 8], "threads": threads}),
                    "runtime": params.runtime.model_copy(update={"intra_threads": intra}),
                }
            ),
            cores=4,
        )

    assert found([None, 1, 4]) == [(8, 4), (8, 1), (1, 4), (1, 1)]
    assert found([None], intra=2) == [(8, 2), (1, 2)]


def test_the_first_setting_is_on_top_and_the_others_under_their_names():
    one = Run({"torch_eager": done([[0.1]] * 5), "a": done([[0.05]] * 5)}, 10.0, repeated=1, disturbed=2)
    two = Run({"torch_eager": done([[0.8]] * 5), "a": Measurement(failure="it hangs")}, 20.0, repeated=3, disturbed=4)
    conditions = Conditions("a machine", "CPUExecutionProvider", "", "none")
    nothing = PreparationMetrics(decode_ms=None, preprocess_ms=None, raw_items=0)
    found = benchmark_metrics({(1, 2): one, (8, 1): two}, PARAMS, conditions, nothing)
    assert (found.batch, found.threads, found.starts, found.rounds) == (1, 2, 1, 5)
    assert (found.wall_s, found.repeated_rounds, found.disturbed_rounds) == (30.0, 1, 2)
    assert found.contenders["a"].speedup_vs_eager == pytest.approx(2)
    assert list(found.settings) == ["batch_8_threads_1"]
    other = found.settings["batch_8_threads_1"]
    assert other.contenders["torch_eager"].throughput_per_s == pytest.approx(10)
    assert other.contenders["a"].failure == "it hangs"
    assert (other.repeated_rounds, other.disturbed_rounds) == (3, 4)


def test_pytorch_and_every_variant_compete(tmp_path, contender, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    for name in VARIANTS:
        files.variant(name).parent.mkdir(parents=True)
        files.variant(name).touch()
    entries = all_contenders(files, contender("a").spec, RUNTIME, "cpu")
    assert [entry.name for entry in entries[:8]] == ["torch_eager", "torch_channels_last", "torch_compile", *VARIANTS]


def test_openvino_competes_where_it_is_installed(tmp_path, contender, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "openvino" or None)
    files = {name: tmp_path / name for name in ("fp32", "fp16")}
    entries = onnx_contenders(files, tmp_path, contender("a").spec, RUNTIME)
    assert [(entry.name, entry.kind) for entry in entries] == [
        ("fp32", "onnx"),
        ("fp16", "onnx"),
        ("openvino_fp32", "openvino"),
    ]


def test_plotted_latencies_are_spread_over_the_turn():
    turn = [index / 1e3 for index in range(100)]
    rows = latency_rows(Run({"fp32": done([turn, [0.5]])}, 1.0))
    assert [row["latency_ms"] for row in rows] == [*(f"{value:.4f}" for value in range(0, 100, 5)), "500.0000"]
    assert rows[-1] == {"variant": "fp32", "round": 1, "latency_ms": "500.0000"}
