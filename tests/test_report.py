"""The pages say what was measured, what failed, and what is no difference."""

import re

import numpy as np
import pandas as pd
import pytest

from onnx_release.params import Budget, load_params
from onnx_release.report import (
    Results,
    describe_budget,
    describe_verdict,
    number,
    percent,
    render_html,
    render_markdown,
    summarise,
    worst_layers,
)
from tests.imports import ROOT


def timing(speedup, low, high):
    latency = {"median": 2.0, "mean": 2.1, "std": 0.1, "min": 1.9, "max": 3.0, "p95": 2.5, "p99": None}
    return {
        "latency_ms": latency,
        "samples": 300,
        "throughput_per_s": 476.2,
        "speedup_vs_eager": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "load_ms": 50.0,
        "first_run_ms": 4.0,
        "peak_memory_mb": 170.0,
    }


def row(name, passed=True, speedup=(3.0, 2.8, 3.2), size=14.0, **more):
    output = {
        "max_abs_error": 2e-5,
        "max_abs_error_torch": 1e-5,
        "max_rel_error": 1e-3,
        "sqnr_db": 120.0,
        "cosine": 1.0,
    }
    return {
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


CLASSES = {"agreement": 0.99, "agreement_low": 0.9, "agreement_high": 1.0, "accuracy": 0.9, "accuracy_low": 0.7}
CLASSES |= {"accuracy_high": 1.0, "accuracy_torch": 0.95, "accuracy_drop": 0.05}


@pytest.fixture
def make(monkeypatch):
    """Results with these rows."""
    monkeypatch.chdir(ROOT)

    def results(*rows, model="net", **static):
        summary = summarise(list(rows))
        base = timing(1.0, 1.0, 1.0)
        return Results(
            model=model,
            verdict=describe_verdict(list(rows), summary),
            passed=all(item["passed"] for item in rows),
            summary=summary,
            rows=list(rows),
            base=base,
            benchmark={
                "batch": 1,
                "threads": 2,
                "starts": 3,
                "rounds": 15,
                "torch_eager": base,
                **{item["name"]: item["timing"] for item in rows},
            },
            prepare={"evaluation_samples": 200, "evaluation_groups": 20, "evaluation_labelled": 20},
            slim={"nodes_before": 120, "nodes_after": 99},
            operators=[("Conv", [52, 52, 52, 52, 2]), ("Identity", [3, 0, 0, 0, 0])],
            fp16={"fp16_nodes": 98, "float_nodes": 1, "blocked": "node_mean"},
            quantize_dynamic={"quantized_nodes": 1, "float_nodes": 98},
            quantize_static={
                **{"target": "avx2", "weight_type": "int8", "activation_type": "uint8", "reduce_range": True},
                **{"quantized_nodes": 60, "fused_nodes": 59, "unfused": "node_mean (ReduceMean): no kernel"},
                **{"float_layers": "node_first", "budget_met": True, "budget_failure": "", **static},
            },
            layers=[{"node": "node_worst", "module": "features.3", "added": 0.02}],
            hardware={"cpu": "a CPU", "gpus": [], "cores": 2, "packages": {"numpy": "2"}},
            params=load_params(),
            latencies={name: np.array([1.0, 2.0, 3.0]) for name in ("torch_eager", "export", "fp32")},
            pipeline={
                "model": "net",
                "machine": "a machine",
                "fresh_seconds": 60.0,
                "unchanged_seconds": 2.0,
                "unchanged_stages": ["hardware"],
                "differing_stages": ["benchmark", "report"],
                "opset_20_stages": ["export"],
                "readme_stages": [],
            },
        )

    return results


def test_the_fastest_variant_that_passed_and_may_ship_is_chosen(make):
    results = make(row("export", speedup=(9.0, 8.0, 10.0), size=28.0), row("fp32", **CLASSES))
    assert results.summary == {
        "variant": "fp32",
        "accuracy_drop": 0.05,
        "agreement": 0.99,
        "speedup_vs_eager": 3.0,
        "size_mb": 14.0,
        "compression": 2.0,
    }
    assert results.verdict == (
        "Release fp32: the same answer as PyTorch on 99.0 % of the samples, "
        "3.00 times as fast as PyTorch eager, 14.0 MB."
    )


def test_nothing_is_released_when_all_failed(make):
    results = make(row("export"), row("fp32", passed=False))
    assert set(results.summary.values()) == {None}
    assert results.verdict == "Nothing to release: fp32 failed."
    for page in (render_html(results), render_markdown(results)):
        assert "logits of fp32 is off by 3" in page
        assert "failed" in page.lower()


def test_an_interval_that_holds_1_is_no_difference(make):
    results = make(row("export"), row("fp32", speedup=(1.02, 0.97, 1.05)))
    assert "as fast (no difference) as PyTorch eager" in results.verdict
    assert "no difference: 0.97 to 1.05" in render_html(results)
    assert "1.02 [0.97, 1.05] no difference" in render_markdown(results)
    assert "no difference" not in render_html(make(row("export"), row("fp32")))


def test_a_task_without_classes_has_no_agreement(make):
    results = make(row("export"), row("fp32"))
    assert "as PyTorch on" not in results.verdict
    assert "| fp32 | yes | – | – | 2 |" in render_markdown(results)
    assert render_html(results)


def test_the_page_needs_no_network(make):
    page = render_html(make(row("export", **CLASSES), row("fp32", **CLASSES)))
    namespaces = re.compile(r'xmlns(:\w+)?="[^"]*"')
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)", namespaces.sub("", page))


def test_the_charts_take_their_colours_from_the_page(make):
    page = render_html(make(row("export"), row("fp32")))
    assert page.count("<svg") == 3
    assert "var(--accent)" in page
    assert "#010203" not in page and "#040506" not in page


def test_the_same_results_are_the_same_bytes(make):
    rows = row("export", **CLASSES), row("fp32", **CLASSES)
    assert render_html(make(*rows)) == render_html(make(*rows))


def test_what_a_model_is_called_is_text(make):
    page = render_html(make(row("export"), row("fp32"), model="<b>net</b>"))
    assert "<b>net</b>" not in page
    assert "&lt;b&gt;net" in page


def test_numbers_are_short_and_none_is_a_dash():
    assert [number(value) for value in (0.0123456, 2.0, 123.4, 12345.6, None)] == ["0.0123", "2", "123", "12,346", "–"]
    assert [percent(value) for value in (0.8316, 1.0, None)] == ["83.2 %", "100.0 %", "–"]


def test_the_page_says_what_became_of_the_bits(make):
    page = render_html(make(row("export", **CLASSES), row("fp32", **CLASSES)))
    assert "node_mean stayed in float32" in page
    assert "int8 weights of 7 bits, uint8 activations" in page
    assert "runs 59 of its 60 quantized nodes on integers, but not node_mean (ReduceMean): no kernel" in page
    assert "The search keeps node_first in float." in page
    assert "node_worst features.3" in page and "did not meet the budget" not in page


def test_a_missed_budget_is_on_the_page(make):
    page = render_html(make(row("export"), row("fp32"), budget_met=False, budget_failure="the SQNR is 12 dB"))
    assert "It did not meet the budget: the SQNR is 12 dB." in page


def test_the_worst_layers_come_first_and_those_that_are_not_finite_before_them():
    steps = pd.DataFrame({"node": ["a", "b", "c"], "added": [0.1, None, 0.3]})
    assert [layer["node"] for layer in worst_layers(steps)] == ["b", "c", "a"]


def test_the_budget_in_words():
    budget = Budget(agreement=0.9, accuracy_drop=None, sqnr_db=19.5, minutes=1)
    assert describe_budget(budget) == (
        "at least 90% of the samples keep PyTorch's answer, the SQNR is at least 19.5 dB"
    )
