"""The pages say what was measured, what failed, and what is no difference."""

import os
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from ruamel.yaml import YAML

from onnx_release.choice.choice import Candidate, Validated, summarise
from onnx_release.core.params import load_defaults
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import SHIPPABLE, VARIANTS
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.export.metrics import SlimMetrics
from onnx_release.performance.metrics import OperatorMetrics, OptimizeMetrics, ProfileMetrics
from onnx_release.reduce.metrics import Fp16Metrics, QuantizeDynamicMetrics
from onnx_release.report.charts import stand_alone
from onnx_release.report.metrics import flatten
from onnx_release.report.pages import (
    PICTURES,
    make_charts,
    operator_cells,
    profile_shares,
    render_html,
    render_markdown,
)
from onnx_release.report.results import Explained, Graphs, Results, StageMetrics, worst_layers
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, number, percent
from onnx_release.report.verdict import describe_verdict, describe_warnings
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.validate.metrics import ValidateMetrics
from stages import report as stage
from tests.imports import ROOT
from tests.validated import KINDS, validated
from tools.new_model import pipeline_text


def timing(speedup, low, high):
    latency = {"median": 2.0, "mean": 2.1, "std": 0.1, "min": 1.9, "max": 3.0, "p95": 2.5, "p99": None}
    return {
        "failure": "",
        "provider": "CPUExecutionProvider",
        "provider_note": "",
        "latency_ms": latency,
        "samples": 300,
        "throughput_per_s": 476.2,
        "speedup_vs_eager": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "speedup_vs_compile": speedup and speedup / 2,
        "speedup_vs_compile_low": low and low / 2,
        "speedup_vs_compile_high": high and high / 2,
        "no_difference_from": "",
        "load_ms": 50.0,
        "first_run_ms": 4.0,
        "peak_memory_mb": 170.0,
    }


def broken(reason):
    """The row of a contender that could not be measured."""
    figures = dict.fromkeys(timing(1.0, 1.0, 1.0))
    texts = {"failure": reason, "no_difference_from": "", "samples": 0}
    return {**figures, **texts, "latency_ms": dict.fromkeys(timing(1.0, 1.0, 1.0)["latency_ms"])}


def row(name, passed=True, speedup=(3.0, 2.8, 3.2), size=14.0, **more):
    """What the pages read of a variant, whose validation is that of a task without answers unless `more` has them."""
    output = {
        "max_abs_error": 2e-5,
        "max_abs_error_torch": 1e-5,
        "max_rel_error": 1e-3,
        "sqnr_db": 120.0,
        "cosine": 1.0,
    }
    return {
        **validated("tensor"),
        "name": name,
        "size_mb": size,
        "passed": passed,
        "failure": "" if passed else f"logits of {name} is off by 3",
        "max_abs_error": 2e-5,
        "error_vs_torch_rounding": 2.0,
        "sqnr_db": 120.0,
        "outputs": {"logits": {**output, "worst_case": "batch=7", "tolerance_needed": 1e-6}},
        "timing": timing(*speedup),
        **more,
    }


def candidate_of(item):
    """The candidate of a row, whose other fields are those of its validation."""
    found = {key: value for key, value in item.items() if key not in ("name", "size_mb", "timing")}
    timed = ContenderMetrics.model_validate(item["timing"])
    return Candidate(item["name"], ValidateMetrics.model_validate(found), timed)


PREPARE = PrepareMetrics(
    calibration_samples=160,
    calibration_groups=160,
    evaluation_samples=200,
    evaluation_groups=20,
    evaluation_labelled=20,
)
FP16 = Fp16Metrics(
    size_mb=7.0, fp16_nodes=98, float_nodes=1, casts=4, blocked_nodes=1, blocked="node_mean", clamped_weights=0
)
STATIC = QuantizeStaticMetrics(
    size_mb=3.5,
    target="avx2",
    weight_type="int8",
    activation_type="uint8",
    reduce_range=True,
    quantized_nodes=60,
    float_nodes=39,
    fused_nodes=59,
    unfused_nodes=1,
    unfused="node_mean (ReduceMean): no kernel",
    requantized_nodes=0,
    requantized="",
    budget_met=True,
    budget_failure="",
    float_layers="node_first",
    float_operators="Add",
    plain_layers="",
    fitted_graphs=3,
    refined_ranges=5,
    calibration_sqnr_db=121.0,
    calibration_agreement=1.0,
)
QUIET = {"repeated_rounds": 0, "disturbed_rounds": 0}
OPTIMIZE = OptimizeMetrics(
    variant="fp32",
    load_ms_before=14.9,
    load_ms=5.8,
    speedup=2.5,
    speedup_low=2.4,
    speedup_high=2.6,
    nodes_before=298,
    nodes=69,
    size_mb=14.0,
    onnxruntime="1.31.1",
)
PROFILE = ProfileMetrics(
    variant="fp32",
    calls=100,
    model_ms=2.0,
    outside_ms=0.5,
    operators={
        "Conv": OperatorMetrics(nodes=2, ms=1.0, share=0.67),
        "Add": OperatorMetrics(nodes=1, ms=0.5, share=0.33),
    },
)
BASE_OF_COMPILED = ("speedup_vs_compile", "speedup_vs_compile_low", "speedup_vs_compile_high")
CLASSES = {"agreement": 0.99, "agreement_low": 0.9, "agreement_high": 1.0, "accuracy": 0.9, "accuracy_low": 0.7}
CLASSES |= {"accuracy_high": 1.0, "accuracy_torch": 0.95, "accuracy_drop": 0.05, "labelled": 20}


# Every chart that there may be; what they look like is tested below, and in test_charts.py.
CHARTS = dict.fromkeys((*PICTURES, "operators", "worst_layers"), "<svg></svg>")


def html(results, charts=CHARTS):
    """The page with plain spaces."""
    return render_html(results, charts).replace("\N{NO-BREAK SPACE}", " ")


def short(results):
    return render_markdown(results, CHARTS)


@pytest.fixture
def make(monkeypatch):
    """Results with these rows."""
    monkeypatch.chdir(ROOT)

    def results(*rows, task="classification", model="net", benchmark=None, calibration=160, not_made=None, **static):
        benchmark = {
            "machine": "a machine",
            "batch": 1,
            "threads": 2,
            "starts": 3,
            "rounds": 15,
            "provider": "CPUExecutionProvider",
            "provider_note": "",
            "copies": "none",
            "repeated_rounds": 2,
            "disturbed_rounds": 0,
            "wall_s": 80.0,
            "calling_s": 40.0,
            "loading_s": 20.0,
            "overhead": 0.25,
            "preparation": {"decode_ms": 2.96, "preprocess_ms": 1.51, "raw_items": 20},
            "settings": {},
            "torch_eager": timing(1.0, 1.0, 1.0),
            "torch_compile": timing(2.0, 1.9, 2.1) | dict.fromkeys(BASE_OF_COMPILED, 1.0),
            **{name: timing(0.5, 0.4, 0.6) for name in VARIANTS},  # beside the rows that a test is about
            **{item["name"]: item["timing"] for item in rows},
            **(benchmark or {}),
        }
        candidates = [candidate_of(item) for item in rows]
        measured = BenchmarkMetrics.model_validate(benchmark)
        sizes = {item["name"]: item["size_mb"] for item in rows}
        return Results(
            model=model,
            spec=load_spec("digits_cnn").model_copy(update={"task": task}),
            params=load_defaults(),
            hardware={"cpu": "a CPU", "gpus": [], "cores": 2, "packages": {"numpy": "2"}},
            candidates=candidates,
            not_made=not_made or {},
            metrics=StageMetrics(
                prepare=PREPARE.model_copy(update={"calibration_samples": calibration}),
                slim=SlimMetrics(nodes_before=120, nodes_after=99, size_mb_before=14.1, size_mb_after=14.0),
                fp16=FP16,
                quantize_dynamic=QuantizeDynamicMetrics(
                    size_mb=4.0, quantized_nodes=1, float_nodes=98, weight_type="int8", reduce_range=False
                ),
                quantize_static=STATIC.model_copy(update=static),
                benchmark=measured,
                optimize=OPTIMIZE,
                profile=PROFILE,
                summary=summarise(Validated(candidates, not_made or {}), sizes, measured),
            ),
            graphs=Graphs(sizes, [("Conv", [52, 52, 52, 52, 2]), ("Identity", [3, 0, 0, 0, 0])]),
            explained=Explained(
                "int8_static",
                [
                    {
                        **{"node": "node_worst", "operators": "Conv+Clip", "added": 0.02, "sqnr_db": 17.0},
                        **{"module": "features.3", "source": "net.py:9"},
                    }
                ],
                {"fp16": [70.0, 60.0], "int8_static": [float("nan"), 17.0]},
            ),
            not_explained={},
            nodes=[
                {
                    **{"node": "slow_conv", "operator": "Conv", "share": 0.4, "ms": 0.6},
                    **{"module": "stem.0", "source": "net.py:7"},
                }
            ],
            latencies={name: np.array([1.0, 2.0, 3.0]) for name in ("torch_eager", *VARIANTS)},
        )

    return results


def test_the_fastest_variant_that_passed_and_may_ship_is_chosen(make):
    results = make(row("export", speedup=(9.0, 8.0, 10.0), size=28.0), row("fp32", **CLASSES))
    assert results.metrics.summary.content() == {
        "variant": "fp32",
        "reason": "the only variant that may be released",
        "refused": {},
        "accuracy_drop": 0.05,
        "agreement": 0.99,
        "speedup_vs_eager": 3.0,
        "speedup_vs_compile": 1.5,
        "not_measured": "",
        "size_mb": 14.0,
        "compression": 2.0,
    }
    assert describe_verdict(results) == (
        "Release fp32, the only variant that may be released: "
        "the same answer as PyTorch on 99.0 % [90.0 %, 100.0 %] of the samples, "
        "3 [2.8, 3.2] times as fast as PyTorch eager, 1.5 [1.4, 1.6] times as fast as torch.compile, 14 MB."
    )


def test_nothing_is_released_when_all_failed(make):
    results = make(row("export"), row("fp32", passed=False))
    summary = results.metrics.summary
    texts = {"reason": "", "not_measured": "", "refused": {"fp32": "logits of fp32 is off by 3"}}
    assert summary.content() == dict.fromkeys(summary.content()) | texts
    assert describe_verdict(results) == "Nothing to release: fp32 failed."
    for text in (html(results), short(results)):
        assert "logits of fp32 is off by 3" in text
        assert "failed" in text.lower()


def test_a_variant_that_was_not_made_is_in_the_way_and_on_both_pages(make):
    results = make(row("export"), row("fp32"), not_made={"fp16": "it could not be made: no kernel for node_Celu_7"})
    results = replace(results, metrics=replace(results.metrics, fp16=None), not_explained={"int8_static": "a Loop"})
    assert not results.passed
    assert describe_verdict(results).endswith("In the way: fp16 failed.")
    assert results.metrics.summary.refused == {"fp16": "it could not be made: no kernel for node_Celu_7"}
    for text in (html(results), short(results)):
        assert "it could not be made: no kernel for node_Celu_7" in text
    assert "<b>fp16</b> has" not in html(results)
    assert "The error of int8_static could not be divided among its layers: a Loop" in html(results)


def test_an_interval_that_includes_1_is_no_difference(make):
    results = make(row("export"), row("fp32", speedup=(1.02, 0.97, 1.05)))
    assert "as fast (no difference [0.97, 1.05]) as PyTorch eager" in describe_verdict(results)
    assert "no difference: 0.97 to 1.05" in html(results)
    assert "<b>no difference</b>in speed from PyTorch eager" in html(results)
    assert "no difference [0.97, 1.05]" in short(results)
    assert "<b>3×</b>as fast as PyTorch eager" in html(make(row("export"), row("fp32")))
    assert "no difference:" not in html(make(row("export"), row("fp32")))


def test_a_task_without_classes_has_no_agreement(make):
    results = make(row("export"), row("fp32"))
    assert "as PyTorch on" not in describe_verdict(results)
    assert "| fp32 | yes | – | – | 2 |" in short(results)
    assert html(results)


@pytest.mark.parametrize(("task", "labelled"), KINDS)
def test_every_task_has_its_pages_with_labels_and_without(make, task, labelled):
    """They are made from what the real validate() gives, where an unknown name is an error."""
    results = make(*(row(name, **validated(task, labelled)) for name in ("export", "fp32")), task=task)
    page, text = html(results), short(results)
    assert (escape(AGREEMENT[task]) in page.partition("<nav")[0]) == (task != "tensor")
    assert ("accuracy, PyTorch's is" in page) == (labelled > 0)
    assert all(f"<th>{name.replace('_', ' ')}</th>" in page for name in ANSWER_DETAILS[task])
    agreement, accuracy = (
        "100.0 % [47.8 %, 100.0 %]" if task != "tensor" else "–",
        percent(results.candidates[1].validation.accuracy),
    )
    assert f"| fp32 | yes | {agreement} | {accuracy}" in text
    assert (results.metrics.summary.accuracy_drop is None) == (labelled == 0)


def test_a_detector_that_finds_nothing_has_dashes(make):
    found = validated("detection", finds_nothing=True)
    assert "<td>–</td><td>–</td></tr>" in html(make(row("export", **found), row("fp32", **found), task="detection"))


def test_the_page_and_its_pictures_need_no_network(make):
    results = make(row("export", **CLASSES), row("fp32", **CLASSES))
    charts = make_charts(results)
    namespaces = re.compile(r'xmlns(:\w+)?="[^"]*"')
    for text in (html(results, charts), *map(stand_alone, charts.values())):
        assert not re.search(r"https?://|<script|<link|<image|@import|url\((?!#)", namespaces.sub("", text))
        assert not re.search(r"""(?:src|href)=["'](?!#)""", text)


def test_every_link_of_the_contents_leads_somewhere(make):
    text = html(make(row("export"), row("fp32")))
    links = re.findall(r'href="#([^"]+)"', text)
    assert links
    assert set(links) == set(re.findall(r'<(?:h2|details) id="([^"]+)"', text))


def test_the_charts_take_their_colours_from_the_page_and_are_the_same_bytes_each_time(make):
    results = make(row("export", **CLASSES), row("fp32", **CLASSES))
    charts = make_charts(results)
    text = html(results, charts)
    assert text.count("<svg") == len(charts) == 7
    assert "var(--accent)" in text
    assert not re.search(r"#010203|#040506|#070809|#0a0b0c", text)
    assert html(results, make_charts(results)) == text, "the same results are not the same bytes"


def test_the_pictures_of_the_short_form_stand_in_lines_of_their_own(make):
    lines = short(make(row("export", **CLASSES), row("fp32", **CLASSES))).splitlines()
    assert [line for line in lines if "![" in line] == [f"![{text}]({name}.svg)" for name, text in PICTURES.items()]


def test_the_stage_writes_the_page_and_every_picture_that_the_short_form_names(make, monkeypatch, tmp_path):
    results = make(row("export", **CLASSES), row("fp32", **CLASSES))
    monkeypatch.setattr(stage, "collect", lambda _: results)
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    stage.main(files.model)
    written = [*files.report.glob("*.svg")]
    pictures = {path.name for path in written}
    assert {path.name for path in files.report.iterdir()} == {"index.html", "report.md", *pictures}
    assert {*re.findall(r"\((\w+\.svg)\)", (files.report / "report.md").read_text())} <= pictures
    shown = YAML(typ="safe").load(pipeline_text(files.model))["plots"]
    assert {os.path.normpath(files.pipeline.parent / name) for name in shown} == {*map(str, files.pictures.iterdir())}
    assert {path.name for path in files.pictures.iterdir()} == pictures
    for path in written:
        assert (files.pictures / path.name).read_bytes() == path.read_bytes()


def test_a_run_without_reduced_variants_has_pictures_that_say_so(make, monkeypatch, tmp_path):
    results = replace(make(row("export", **CLASSES), row("fp32", **CLASSES)), explained=None)
    monkeypatch.setattr(stage, "collect", lambda _: results)
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    stage.main(files.model)
    empty = {path.stem for path in files.pictures.iterdir() if "nothing to draw" in path.read_text()}
    assert empty == {"layers", "worst_layers"}
    assert not empty & {path.stem for path in files.report.iterdir()}


def interval_text(key, low, high):
    written = percent if key.startswith(("agreement", "accuracy")) else number
    return f"{written(low)} to {written(high)}"


def test_every_interval_of_the_metrics_is_on_the_page(make):
    classes = {"agreement": 0.97, "agreement_low": 0.91, "agreement_high": 0.985}
    classes |= {"accuracy": 0.88, "accuracy_low": 0.71, "accuracy_high": 0.965, "accuracy_torch": 0.9}
    rows = [
        row("export", **CLASSES),
        row("fp32", speedup=(3.04, 2.83, 3.27), **{**CLASSES, **classes, "accuracy_drop": 0.02}),
    ]
    settings = {"batch_8_threads_1": {**QUIET, "fp32": timing(2.55, 2.46, 2.64)}}
    results = make(*rows, benchmark={"settings": settings})
    text = html(results)
    files = {name: found.content() for name, found in vars(results.metrics).items()}
    files |= {one.name: one.validation.content() for one in results.candidates}
    flat = dict(flatten(files))
    ends = {key.removesuffix("_low") for key in flat if key.endswith("_low")}
    assert len(ends) > 20
    for key in ends:
        name, low, high = key.rsplit(".", 1)[1], flat[f"{key}_low"], flat[f"{key}_high"]
        assert low == high or interval_text(name, low, high) in text, key


def test_what_a_model_is_called_is_text(make):
    text = html(make(row("export"), row("fp32"), model="<b>net</b>"))
    assert "<b>net</b>" not in text
    assert "&lt;b&gt;net" in text


def test_numbers_are_short_and_none_is_a_dash():
    assert [number(value) for value in (0.0123456, 2.0, 123.4, 12345.6, None)] == ["0.0123", "2", "123", "12,346", "–"]
    assert [percent(value) for value in (0.8316, 1.0, None)] == ["83.2 %", "100.0 %", "–"]


def test_the_page_says_what_became_of_the_bits(make):
    text = html(make(row("export", **CLASSES), row("fp32", **CLASSES)))
    assert "node_mean stayed in float32" in text
    assert "int8 weights of 7 bits, uint8 activations" in text
    assert "runs 59 of its 60 quantized nodes on integers, but not node_mean (ReduceMean): no kernel" in text
    assert "The search keeps node_first in float." in text
    assert "<td>node_worst</td>" in text and "net.py:9" in text and "did not meet the budget" not in text


def test_what_the_search_missed_is_on_the_page_and_no_verdict(make):
    text = html(make(row("export"), row("fp32"), budget_met=False, budget_failure="the SQNR is 12 dB"))
    assert "the search found nothing within the budget: the SQNR is 12 dB. Validation decides" in text


def test_the_worst_layers_come_first_and_those_that_are_not_finite_before_them():
    steps = pd.DataFrame({"node": ["a", "b", "c"], "added": [0.1, None, 0.3]})
    assert [layer["node"] for layer in worst_layers(steps)] == ["b", "c", "a"]


def test_a_contender_that_failed_has_a_row_that_says_so(make):
    results = make(row("export"), row("fp32"), benchmark={"torch_compile": broken("it crashed with signal 11")})
    text = html(results)
    assert "could not be measured: it crashed with signal 11" in text
    assert "| torch.compile | | | | | | – | it crashed with signal 11 |" in short(results)


def test_without_a_baseline_there_are_latencies_and_no_speed_ups(make):
    rows = [row(name, speedup=(None, None, None)) for name in ("export", "fp32")]
    none = timing(None, None, None)
    others = {name: none for name in ("torch_compile", *SHIPPABLE) if name != "fp32"}
    results = make(*rows, benchmark={**others, "torch_eager": broken("it ran out of memory")})
    assert results.metrics.summary.variant == "fp32"
    assert describe_verdict(results) == "Release fp32, the only variant that may be released: 14 MB."
    assert "it ran out of memory" in html(results)


def test_a_variant_that_could_not_be_timed_is_not_released(make):
    results = make(row("export"), {**row("fp32"), "timing": broken("the outputs hold NaN")}, row("fp16"))
    assert results.metrics.summary.variant == "fp16"


def test_what_is_beside_the_variants_has_its_row(make):
    text = html(make(row("export"), row("fp32"), benchmark={"openvino_fp32": timing(3.1, 3.0, 3.2)}))
    assert "<td>openvino_fp32</td>" in text


def test_other_batch_sizes_and_thread_counts_have_their_table(make):
    others = {"batch_8_threads_1": {**QUIET, "torch_eager": broken("it hangs"), "fp32": timing(2.5, 2.4, 2.6)}}
    text = html(make(row("export"), row("fp32"), benchmark={"settings": others}))
    assert '<td>batch 8 threads 1</td><td class="left">fp32</td>' in text
    assert "2.4 to 2.6" in text
    assert '<td class="left">torch_eager</td><td class="bad words" colspan="4">could not be measured: it hangs' in text


def test_what_comes_before_the_network_is_on_the_page_where_it_was_timed(make):
    assert "decoding an item takes 2.96 ms and preprocessing it 1.51 ms" in html(make(row("export"), row("fp32")))
    nothing = {"preparation": {"decode_ms": None, "preprocess_ms": None, "raw_items": 0}}
    assert "decoding an item" not in html(make(row("export"), row("fp32"), benchmark=nothing))


def test_a_gpu_that_is_not_used_and_copies_are_on_the_page(make):
    said = {"provider_note": "the GPU is not used: libcudnn.so.9 is missing", "copies": "included"}
    text = html(make(row("export"), row("fp32"), benchmark=said))
    assert "the GPU is not used: libcudnn.so.9 is missing" in text
    assert "copies to the GPU and back included on both sides" in text
    left = {**timing(3.0, 2.8, 3.2), "provider_note": "CUDAExecutionProvider does not run n0 (Neg)"}
    assert "does not run n0 (Neg)" in html(make(row("export"), {**row("fp32"), "timing": left}))


def test_variants_that_no_difference_sets_apart_are_named_on_the_page(make):
    alike = {**timing(3.0, 2.8, 3.2), "no_difference_from": "export, fp16"}
    text = html(make(row("export"), {**row("fp32"), "timing": alike}))
    assert '<td class="words">export, fp16</td>' in text


def test_where_the_time_goes_is_on_the_page(make):
    text = html(make(row("export"), row("fp32")))
    assert '<td>slow_conv</td><td class="left">Conv</td><td>40.0 %</td>' in text
    assert '<td class="left">stem.0</td><td class="left">net.py:7</td>' in text
    assert "<code>artifacts/net/optimized</code> has" in text
    assert "<code>artifacts/net/profile/trace.json</code>" in text
    assert "69 nodes instead of 298, and loads in 5.8 ms instead of 14.9 ms" in text


def test_the_shares_of_a_call_sum_to_one():
    shares = profile_shares(PROFILE)
    assert shares == [("Conv", 0.5), ("Add", 0.25), ("outside of nodes", 0.25)]


def test_changes_of_operators_are_from_the_export_and_then_from_the_slimmed_graph():
    assert operator_cells([10, 7, 7, 9, 7]) == [(10, 0), (7, -3), (7, 0), (9, 2), (7, 0)]


def test_changes_of_operators_are_on_the_page(make):
    text = html(make(row("export"), row("fp32")))
    assert '<td>Identity</td><td>3</td><td><span class="soft">-3</span> <span class="changed">0</span></td>' in text
    assert '<td>all nodes</td><td>55</td><td><span class="soft">-3</span> <span class="changed">52</span></td>' in text


def test_where_each_variant_stands_is_on_the_page(make):
    slow = {**timing(2.0, 1.9, 2.1), "latency_ms": {**timing(1, 1, 1)["latency_ms"], "median": 4.0}}
    fp16 = {**row("fp16", **{**CLASSES, "accuracy": 0.95, "accuracy_low": 0.8}), "timing": slow}
    text = html(make(row("export", **CLASSES), row("fp32", **CLASSES), fp16))
    assert "is never released" in text and "the fastest" in text
    assert "5 points better than fp32 and 2 ms slower (the intervals overlap)" in text  # by accuracy
    assert "beaten by fp32" in text  # by SQNR, which is the same


@pytest.mark.parametrize(("disturbed", "says"), [(0, False), (3, True)])
def test_a_disturbed_benchmark_says_so(make, disturbed, says):
    text = html(make(row("export"), row("fp32"), benchmark={"disturbed_rounds": disturbed}))
    assert "repeated because other work took cores: 2" in text
    assert ("rounds that count and were disturbed: 3." in text) is says


def test_where_all_passed_and_none_was_timed_the_verdict_says_so(make):
    rows = [{**row(name), "timing": broken("it hangs")} for name in ("export", *SHIPPABLE)]
    assert describe_verdict(make(*rows)) == "Nothing to release: no variant could be timed."


CALIBRATED = {**CLASSES, "sqnr_db": 20.0}


def test_a_speed_up_of_a_disturbed_benchmark_is_not_measured(make):
    results = make(row("export"), row("fp32", **CLASSES), benchmark={"disturbed_rounds": 8})
    assert (results.metrics.summary.speedup_vs_eager, results.metrics.summary.speedup_vs_compile) == (None, None)
    assert results.metrics.summary.not_measured == "other work took cores"
    assert "speed not measured (other work took cores), 14 MB." in describe_verdict(results)
    assert "3 [2.8, 3.2]" not in short(results) and "| fp32 | yes |" in short(results)
    page = html(results)
    first_screen = page[: page.index("<nav")]
    assert "2.8 to 3.2" not in page
    assert "<b>Speed was not measured.</b> Other work took cores in 8 of 15 rounds." in first_screen
    command, after = "dvc repro -f -s pipelines/net/dvc.yaml:benchmark", "make repro MODEL=net"
    assert f"<code>{command}</code>, and then <code>{after}</code>" in first_screen
    assert f"`{command}`, and then `{after}`" in short(results)
    assert f"then <code>{command}</code> and <code>{after}</code></span>" in page
    assert "<b>not measured</b>speed against PyTorch eager" in first_screen
    assert make(row("export"), row("fp32"), benchmark={"disturbed_rounds": 7}).metrics.summary.not_measured == ""


def test_a_wide_interval_is_not_blamed_on_other_work(make):
    results = make(row("export"), row("fp32", speedup=(3476.0, 31.3, 385_550.0)))
    assert results.metrics.summary.not_measured == "the interval is wider than a factor of 3"
    page = html(results)
    assert "385,550" not in page + short(results) + describe_verdict(results)
    first_screen = page[: page.index("<nav")]
    assert "Other work" not in first_screen and "<code>benchmark.starts</code>" in first_screen


def test_one_of_two_speed_ups_may_be_measured(make):
    wide = {"speedup_vs_compile_low": 0.1, "speedup_vs_compile_high": 30.0}
    results = make(row("export"), {**row("fp32"), "timing": {**timing(3.0, 2.8, 3.2), **wide}})
    verdict = describe_verdict(results)
    assert "3 [2.8, 3.2] times as fast as PyTorch eager, speed against torch.compile not measured" in verdict
    assert (results.metrics.summary.speedup_vs_eager, results.metrics.summary.speedup_vs_compile) == (3.0, None)
    warning = describe_warnings(results)[0]
    assert warning.startswith("**Speed against torch.compile was not measured.** Its 95 % interval is")


def test_a_choice_that_is_not_by_speed_says_so(make):
    alike = {**timing(3.0, 2.8, 3.2), "no_difference_from": "fp32"}
    fp16 = {**row("fp16"), "timing": alike, "sqnr_db": 60.0}
    rows = [row("export"), {**row("fp32"), "timing": {**timing(2.9, 2.7, 3.1), "no_difference_from": "fp16"}}, fp16]
    text = "the most exact of fp32 and fp16, between which no difference in speed was measured"
    assert f", {text}: " in describe_verdict(make(*rows))
    slower = {**row("fp16"), "timing": timing(1.0, 0.9, 1.1)}
    faster = {**row("fp32"), "timing": {**timing(3.0, 2.8, 3.2), "no_difference_from": ""}}
    assert describe_verdict(make(row("export"), faster, slower)).startswith("Release fp32, the fastest variant that")


def test_a_variant_that_alone_passed_is_said_to_be_the_only_one(make):
    failed = {**row("fp16"), "passed": False, "failure": "the SQNR is 3 dB"}
    for rows in ([row("export"), row("fp32")], [row("export"), row("fp32"), failed]):
        results = make(*rows, benchmark={"disturbed_rounds": 15})
        assert results.metrics.summary.reason == "the only variant that may be released"


def test_little_calibration_is_on_the_first_screen(make):
    results = make(
        row("export"), row("fp32"), row("int8_static", **CALIBRATED), calibration=15, calibration_sqnr_db=23.1
    )
    (warning,) = describe_warnings(results)
    assert warning.startswith(
        "**int8_static is calibrated on 15 samples, and 3.1 dB worse on evaluation samples (20 dB) than on "
        "calibration samples (23.1 dB).** Calibrate on more"
    )
    assert warning.endswith("limits their number, in params.yaml or in models/net/params.yaml.")
    page = html(results)
    assert "calibrated on 15 samples" in page[: page.index("<nav")] and warning in short(results)


@pytest.mark.parametrize(
    ("samples", "searched", "says"),
    [(16, 23.0, ""), (1, 23.0, "calibrated on 1 sample."), (16, 37.0, "17 dB worse"), (16, None, "")],
)
def test_enough_calibration_has_no_warning(make, samples, searched, says):
    static = row("int8_static", **CALIBRATED)
    results = make(row("export"), row("fp32"), static, calibration=samples, calibration_sqnr_db=searched)
    warnings = describe_warnings(results)
    assert bool(warnings) is bool(says)
    assert says in "".join(warnings)


def test_a_model_without_int8_static_has_no_warning_of_its_calibration(make):
    assert describe_warnings(make(row("export"), row("fp32"), calibration=1)) == []


def test_what_other_settings_did_not_measure_is_said_of_them_alone(make):
    other = {**QUIET, "torch_eager": timing(1.0, 1.0, 1.0), "fp32": timing(4.0, 3.8, 4.2), "disturbed_rounds": 15}
    text = html(make(row("export"), row("fp32"), benchmark={"settings": {"batch_8_threads_2": other}}))
    line = next(line for line in text.splitlines() if "batch 8 threads 2" in line and ">fp32<" in line)
    assert line.count("not measured") == 2
    assert "2.8 to 3.2" in text
