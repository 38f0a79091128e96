"""Verdicts: worked out by hand for metrics that are the same in each run, and by their error rates for noisy ones."""

import io
import json

import pandas as pd
import pytest

from onnx_release.report.metrics import flatten, metric
from onnx_release.review.compare import compare
from onnx_release.review.comparison_pages import release as release_rows
from onnx_release.review.revisions import Revision
from onnx_release.timing import speedup
from tests.imports import ROOT
from tests.revisions import LOCK, answers, as_json, changed, release, revision, unmeasured

pytestmark = pytest.mark.usefixtures("fewer_resamples")
FILES = release()


def row_of(base, head, name):
    row = compare(revision(base), revision(head)).row(name)
    assert row is not None
    return row


def verdicts(base, head):
    return {row.name: row.verdict for row in compare(revision(base), revision(head)).rows}


def different(base, head):
    return {name: verdict for name, verdict in verdicts(base, head).items() if verdict != "no difference"}


def test_a_release_does_not_differ_from_itself_and_every_metric_has_a_row():
    found = verdicts(FILES, FILES)
    assert set(found.values()) == {"no difference"}
    assert {"export.opset", "validate/fp32.accuracy", "benchmark.fp32.latency_ms.p95", "summary.variant"} <= {*found}
    assert not any(name.endswith(("_low", "_high", ".samples", ".no_difference_from")) for name in found)


def test_the_repository_s_own_metrics_do_not_differ_from_themselves():
    paths = [path for path in (ROOT / "metrics").rglob("*") if path.suffix in (".json", ".csv")]
    own = Revision("a revision", {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths})
    for name in own.models:
        model = own.of_model(name)
        keys = [(file, key) for file, values in model.metrics.items() for key, _ in flatten(values)]
        compared = [(file, key) for file, key in keys if metric(file, key).is_compared]
        found = {row.name: row.verdict for row in compare(model, model).rows}
        assert {f"{file}.{key}" for file, key in compared if "trials" not in key} <= {*found}
        assert set(found.values()) == {"no difference"}


@pytest.mark.parametrize(("noise", "times"), [(0.01, 4), (0.05, 8)])
def test_the_same_measured_again_does_not_differ(noise, times):
    """On a quiet machine and on a busy one, where a speed-up whose interval is too wide counts as not measured."""
    base = release(0, noise=noise)
    for seed in range(1, times + 1):
        rows = compare(revision(base), revision(release(seed, noise=noise))).rows
        other = [row for row in rows if row.verdict != "no difference"]
        assert noise > 0.01 or other == []
        assert all(row.metric.noise == "speedup" and row.reason.endswith(speedup.TOO_WIDE) for row in other)


@pytest.mark.parametrize("speed", [0.6, 0.8, 1.0, 1.6])
def test_twice_as_slow_is_found_however_the_machine_drifts(speed):
    found = different(FILES, release(1, speed=speed, int8_static=2.0))
    assert found["benchmark.int8_static.speedup_vs_eager"] == "worse"
    assert not any("fp32" in name or "torch" in name for name in found)


def test_faster_is_better():
    found = different(FILES, release(1, int8_static=0.4))
    assert found["benchmark.int8_static.speedup_vs_eager"] == "better"
    assert found["benchmark.int8_static.latency_ms.min"] == "better"
    assert {*found.values()} == {"better"}


def test_a_machine_that_is_faster_throughout_is_no_better_release():
    comparison = compare(revision(FILES), revision(release(1, speed=2.0)))
    assert {row.verdict for row in comparison.rows} == {"no difference"}
    assert any("the speed of the machine has changed" in note for note in comparison.notes)


def test_another_network_tells_nothing_of_the_machine_and_a_note_says_so():
    slow = release(1, speed=0.4)
    slow[LOCK] = slow[LOCK].replace(b"models/digits_cnn, md5: a", b"models/digits_cnn, md5: z")
    comparison = compare(revision(FILES), revision(slow))
    found = {row.name: row.verdict for row in comparison.rows}
    assert found["benchmark.torch_eager.latency_ms.min"] == found["benchmark.fp32.latency_ms.min"] == "worse"
    assert found["benchmark.fp32.speedup_vs_eager"] == "no difference"
    assert [note for note in comparison.notes if note.startswith("PyTorch eager may be another program")]
    assert not [note for note in compare(revision(FILES), revision(release(1))).notes if "another program" in note]


def test_five_percent_of_the_answers_lost_are_found():
    found = different(FILES, release(wrong={"int8_static": 10}))
    assert found["validate/int8_static.accuracy"] == "worse"
    assert found["validate/int8_static.accuracy_drop"] == "worse"
    assert found["validate/int8_static.agreement"] == "worse"
    assert not any("fp32" in name for name in found)


def test_samples_of_one_photograph_are_one_sample():
    """Ten crops of two photographs that go wrong say less than ten of ten."""
    base, head = dict(FILES), release(wrong={"int8_static": 10})
    path = "metrics/digits_cnn/plots/validate/int8_static.csv"
    for files in (base, head):
        rows = files[path].decode().splitlines()
        files[path] = "\n".join(
            [rows[0], *(",".join([cells[0], "one" if index < 5 else "two" if index < 10 else cells[1], *cells[2:]])
             for index, cells in enumerate(row.split(",") for row in rows[1:]))]
        ).encode()  # fmt: skip
    assert different(base, head) == {}


def test_two_samples_of_two_hundred_are_no_difference_and_say_so_with_their_p_value():
    row = row_of(FILES, release(wrong={"fp32": 2}), "validate/fp32.accuracy")
    assert (row.verdict, row.base, row.head) == ("no difference", 1.0, 0.99)
    assert row.p == 1.0  # 0.5, for three metrics


@pytest.mark.parametrize(
    ("path", "value", "verdict"),
    [
        ("metrics/digits_cnn/export.json", {"size_mb": 0.26}, "worse"),
        ("metrics/digits_cnn/export.json", {"size_mb": 0.24}, "better"),
        ("metrics/digits_cnn/export.json", {"size_mb": 0.2500001}, "no difference"),
        ("metrics/digits_cnn/export.json", {"opset": 20}, "changed"),
        ("metrics/digits_cnn/export.json", {"exporter": "torchscript"}, "changed"),
        ("metrics/digits_cnn/export.json", {"nodes": ...}, "gone"),
        ("metrics/digits_cnn/export.json", {"parameters": 9}, "new"),
        ("metrics/digits_cnn/quantize_static.json", {"budget_met": False}, "worse"),
        ("metrics/digits_cnn/quantize_static.json", {"budget_failure": "12 dB"}, "changed"),
        ("metrics/digits_cnn/validate/fp32.json", {"sqnr_db": 31.0}, "better"),
        ("metrics/digits_cnn/validate/fp32.json", {"sqnr_db": None}, "not comparable"),
    ],
)
def test_what_is_the_same_each_time_differs_by_its_direction(path, value, verdict):
    found = different(FILES, changed(FILES, path, **value))
    name = f"{path.removeprefix('metrics/digits_cnn/').removesuffix('.json')}.{next(iter(value))}"
    assert found == ({} if verdict == "no difference" else {name: verdict})


def test_keys_that_this_version_does_not_know_are_compared_without_a_direction():
    old = changed(FILES, "metrics/digits_cnn/export.json", parts=3, kind="a")
    found = different(old, changed(FILES, "metrics/digits_cnn/export.json", parts=4))
    assert found == {"export.parts": "changed", "export.kind": "gone"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"machine": "another"}, "another machine: a machine; now another"),
        ({"batch": 4}, "another batch size: 1; now 4"),
        ({"threads": 1}, "another thread count: 2; now 1"),
        ({"copies": "included"}, "another copies to a GPU: none; now included"),
        ({"provider": "CUDAExecutionProvider"}, "another provider: CPUExecutionProvider; now CUDAExecutionProvider"),
    ],
)
def test_timings_of_another_machine_or_setting_are_not_comparable(value, reason):
    comparison = compare(revision(FILES), revision(changed(release(1), "metrics/digits_cnn/benchmark.json", **value)))
    timed = [row for row in comparison.rows if row.file == "benchmark" and row.metric.noise]
    assert {(row.verdict, row.reason) for row in timed} == {("not comparable", reason)}
    assert reason in comparison.notes
    others = {row.verdict for row in comparison.rows if row.file != "benchmark"}
    assert others == {"no difference"}


def test_without_a_benchmark_on_one_side_its_metrics_are_new():
    base = {path: content for path, content in FILES.items() if path != "metrics/digits_cnn/benchmark.json"}
    comparison = compare(revision(base, "the base"), revision(FILES))
    assert {row.verdict for row in comparison.rows if row.file == "benchmark"} == {"new"}
    assert "the base has no metrics/digits_cnn/benchmark.json, which names its machine" in comparison.notes


def test_without_latencies_by_round_the_allowance_alone_decides():
    def less(files):
        return {path: content for path, content in files.items() if "latency.csv" not in path}

    assert different(less(FILES), less(release(1))) == {}
    row = row_of(less(FILES), less(release(1, int8_static=2.0)), "benchmark.int8_static.latency_ms.min")
    assert (row.verdict, row.p) == ("worse", None)
    assert row.reason.startswith("measured once; a second measurement of the same may be 0.")


def test_a_contender_on_another_provider_is_not_comparable_and_the_others_are():
    benchmark = json.loads(FILES["metrics/digits_cnn/benchmark.json"])
    benchmark["fp32"]["provider"] = "CUDAExecutionProvider"
    found = different(FILES, {**FILES, "metrics/digits_cnn/benchmark.json": as_json(benchmark)})
    assert found.pop("benchmark.fp32.provider") == "changed"
    assert {*found.values()} == {"not comparable"}
    assert all(name.startswith("benchmark.fp32.") for name in found)


def test_the_metrics_of_another_model_are_no_part_of_a_comparison():
    """Also where the name of the one is the beginning of the other's."""
    others = {path.replace("digits_cnn", "digits_cnn_large"): content for path, content in release(1, fp32=9.0).items()}
    metrics = {path: content for path, content in others.items() if path.startswith("metrics/digits_cnn_large/")}
    assert metrics and verdicts(FILES, {**FILES, **metrics}) == dict.fromkeys(verdicts(FILES, FILES), "no difference")


def test_other_evaluation_samples_are_named():
    other = dict(FILES)
    for variant in ("fp32", "int8_static"):
        path = f"metrics/digits_cnn/plots/validate/{variant}.csv"
        table = pd.read_csv(io.BytesIO(FILES[path])).head(100)
        other[path] = table.to_csv(index=False).encode()
    row = row_of(FILES, other, "validate/fp32.agreement")
    assert row.verdict == "not comparable"
    assert row.reason == "other evaluation samples: 200 from 40 groups, now 100 from 40 groups"


def test_metrics_of_the_chosen_variant_do_not_compare_with_those_of_another():
    base = {**FILES, "metrics/digits_cnn/optimize.json": as_json({"variant": "fp32", "load_ms": 9.0, "nodes": 40})}
    head = {
        **FILES,
        "metrics/digits_cnn/optimize.json": as_json({"variant": "int8_static", "load_ms": 9.0, "nodes": 50}),
    }
    assert row_of(base, head, "optimize.nodes").reason == "another variant: fp32, now int8_static"
    assert row_of(base, head, "optimize.load_ms").verdict == "not comparable"


def test_a_choice_is_changed_only_where_what_it_rests_on_is():
    base, head = changed(FILES, "metrics/digits_cnn/summary.json", variant="fp32"), release(1)
    row = row_of(base, head, "summary.variant")
    assert (row.verdict, row.reason) == ("no difference", "decided by the noise of timings")
    row = row_of(base, release(1, int8_static=0.3), "summary.variant")
    assert (row.verdict, row.reason) == ("changed", "")


def test_metrics_of_a_choice_that_noise_has_changed_do_not_compare():
    def chosen(files, variant, size_mb, operator):
        return {
            **changed(files, "metrics/digits_cnn/summary.json", variant=variant, size_mb=size_mb),
            "metrics/digits_cnn/optimize.json": as_json({"variant": variant, "nodes": 40}),
            "metrics/digits_cnn/profile.json": as_json(
                {"variant": variant, "operators": {operator: {"nodes": 1, "ms": 1.0}}}
            ),
        }

    base, head = chosen(FILES, "fp32", 0.25, "Conv"), chosen(release(1), "int8_static", 0.08, "QLinearConv")
    assert {*different(base, head).values()} == {"not comparable"}
    assert row_of(base, head, "summary.size_mb").reason.startswith("another variant, decided by the noise")
    assert row_of(base, head, "summary.variant").reason == "decided by the noise of timings"
    head = chosen(release(1, int8_static=0.3), "int8_static", 0.08, "QLinearConv")
    assert row_of(base, head, "summary.variant").verdict == "changed"
    assert row_of(base, head, "summary.size_mb").verdict == "better"


def test_latencies_and_throughput_of_two_runs_are_not_compared():
    found = verdicts(FILES, release(1, int8_static=2.0))
    assert not [name for name in found if name.endswith(("latency_ms.median", "latency_ms.mean", "throughput_per_s"))]


def test_a_harness_that_has_changed_tells_nothing_of_the_machine():
    head = release(1, speed=0.5)
    slower = compare(revision(FILES), revision(head)).notes
    assert any("the speed of the machine has changed" in note for note in slower)
    head["onnx_release/timing/worker.py"] += b"# another"
    assert not any("the speed of the machine" in note for note in compare(revision(FILES), revision(head)).notes)


def test_a_percentile_that_one_side_had_too_few_calls_for_is_left_out_and_one_of_a_contender_that_failed_is_not():
    benchmark = json.loads(FILES["metrics/digits_cnn/benchmark.json"])
    benchmark["fp32"]["latency_ms"]["p95"] = None
    assert different(FILES, {**FILES, "metrics/digits_cnn/benchmark.json": as_json(benchmark)}) == {}
    benchmark["fp32"]["failure"] = "it hangs"
    found = different(FILES, {**FILES, "metrics/digits_cnn/benchmark.json": as_json(benchmark)})
    assert found == {"benchmark.fp32.failure": "changed", "benchmark.fp32.latency_ms.p95": "not comparable"}


def test_a_row_has_the_intervals_of_its_metric():
    row = row_of(FILES, FILES, "benchmark.fp32.speedup_vs_eager")
    benchmark = json.loads(FILES["metrics/digits_cnn/benchmark.json"])["fp32"]
    assert row.base_interval == (benchmark["speedup_low"], benchmark["speedup_high"])


def test_a_speed_up_that_was_not_measured_does_not_compare_and_says_why():
    base = changed(FILES, "metrics/digits_cnn/summary.json", speedup_vs_eager=3.0, not_measured="")
    head = unmeasured(FILES)
    row = row_of(base, head, "summary.speedup_vs_eager")
    assert (row.verdict, row.reason) == ("not comparable", "not measured in the head: other work took cores")
    row = row_of(head, base, "summary.speedup_vs_eager")
    assert row.reason == "not measured in the base: other work took cores"
    rows = release_rows(compare(revision(base), revision(head)))
    assert ("not_measured", "", "other work took cores") in [row[:3] for row in rows]
    assert "not_measured" not in {row[0] for row in release_rows(compare(revision(base), revision(base)))}


def test_metrics_of_commits_that_counted_no_rounds_are_compared():
    old = changed(FILES, "metrics/digits_cnn/benchmark.json", disturbed_rounds=..., rounds=...)
    row = row_of(old, release(1), "benchmark.int8_static.speedup_vs_eager")
    assert row.verdict == "no difference" and row.p is not None


def test_one_start_and_disturbed_rounds_are_said():
    head = changed(FILES, "metrics/digits_cnn/benchmark.json", starts=1, disturbed_rounds=4)
    notes = compare(revision(FILES), revision(head)).notes
    assert "the benchmark of the head has one start of each process, so it does not show how starts differ" in notes
    assert "other work took cores in 4 of the 15 rounds of the head" in notes


def test_other_hardware_under_the_same_name_is_said():
    head = {**FILES, LOCK: FILES[LOCK].replace(b"hardware.json, md5: e", b"hardware.json, md5: f")}
    assert any("artifacts/hardware.json differs" in note for note in compare(revision(FILES), revision(head)).notes)


def test_a_variant_that_is_left_out_is_gone_and_no_error():
    head = {**FILES, **answers("fp32", 0), "metrics/digits_cnn/validate/fp32.json": as_json({"left_out": True})}
    head["metrics/digits_cnn/plots/validate/fp32.csv"] = b"left_out\n"
    found = different(FILES, head)
    assert found.pop("validate/fp32.left_out") == "new"
    assert {*found.values()} == {"gone"}


def test_where_pytorch_eager_was_disturbed_speed_ups_are_not_measured_and_the_rest_is_as_before():
    comparison = compare(revision(FILES), revision(release(2, disturbed=("torch_eager",))))
    different = [row for row in comparison.rows if row.verdict != "no difference"]
    ratios = [row for row in different if row.metric.noise == "speedup"]
    assert ratios and all(row.reason.startswith("not measured in the head: ") for row in ratios)
    assert all(row.name.startswith("benchmark.torch_eager.") for row in different if row not in ratios)
    assert any(note.startswith("other work disturbed PyTorch eager") for note in comparison.notes)
    assert not any("the speed of the machine has changed" in note for note in comparison.notes)
