"""What is shown of a comparison, and how numbers and changes are written."""

import pytest

from onnx_release.core.metrics import Metric
from onnx_release.report.metrics import metric
from onnx_release.review.compare import Row, compare
from onnx_release.review.comparison_pages import COMMENT_ROWS, as_markdown, as_text, change, value, without_repeats
from tests.revisions import changed, release, revision

FILES = release()


def compared(head, base=FILES):
    return compare(revision(base), revision(head))


def test_what_differs_is_listed_the_worst_first_and_the_rest_is_counted():
    head = changed(
        changed(FILES, "metrics/digits_cnn/export.json", size_mb=0.2, opset=20),
        "metrics/digits_cnn/quantize_static.json",
        size_mb=1,
    )
    comparison = compared(head)
    same = comparison.counts()["no difference"]
    text = as_text(comparison, everything=False)
    verdicts = [line.split()[0] for line in text.partition("verdict")[2].splitlines()[1:4]]
    assert verdicts == ["worse", "better", "changed"]
    assert text.splitlines()[0] == f"1 worse, 1 better, 1 changed, {same} no difference"
    assert text.endswith(f"{same} without difference (--all lists them)")
    assert "export.nodes" not in text
    assert "export.nodes" in as_text(comparison, everything=True)


def test_what_does_not_compare_is_counted_by_its_reason():
    head = changed(FILES, "metrics/digits_cnn/benchmark.json", machine="another")
    text = as_markdown(compared(head), everything=False)
    count = compared(head).counts()["not comparable"]
    assert count == 39
    assert f"- {count} not comparable, another machine: a machine; now another" in text
    assert "latency_ms" not in text


def test_a_comment_has_what_is_worse_first_then_the_release_then_what_differs_otherwise():
    head = changed(
        changed(FILES, "metrics/digits_cnn/export.json", nodes=41, opset=20),
        "metrics/digits_cnn/summary.json",
        variant="fp32",
    )
    lines = as_markdown(compared(head), everything=False).splitlines()
    assert lines[0].startswith("**1 worse, ")
    # The choice differs, and nothing that it rests on does: that is shown, but is no difference.
    shown = [
        "| **worse** | `export.nodes` | 40 | 41 | +1 |",
        "| variant | int8_static | fp32 | no difference |",
        "| changed | `export.opset` | 18 | 20 | +2 |",
    ]
    assert [line for line in lines if line in shown] == shown


def test_a_slower_variant_is_one_row_of_a_comment_and_so_is_a_smaller_release():
    slow = changed(release(int8_static=2.0), "metrics/digits_cnn/quantize_static.json", size_mb=0.07)
    head = changed(slow, "metrics/digits_cnn/summary.json", size_mb=0.07)
    comparison = compared(head)
    told = [line.split("|")[1:3] for line in as_markdown(comparison, everything=False).splitlines() if " | `" in line]
    assert [(verdict.strip(" *"), name.strip(" `")) for verdict, name in told] == [
        ("worse", "benchmark.int8_static.speedup_vs_eager"),
        ("better", "quantize_static.size_mb"),
    ]
    counts = comparison.counts()
    again = counts["worse"] + counts["better"] - 2
    assert again == 3 and f"- {again} more say the same" in as_markdown(comparison, everything=False)
    text = as_text(comparison, everything=False)
    assert "benchmark.int8_static.latency_ms.min" in text and "summary.size_mb" in text


def test_a_loss_of_one_output_does_not_hide_that_of_another():
    file = "validate/fp32"
    rows = [
        Row(file, f"outputs.{name}.max_abs_error", metric(file, f"outputs.{name}.max_abs_error"), base, head, "worse")
        for name, base, head in (("boxes", 1.0, 1.001), ("probabilities", 1e-5, 0.5))
    ]
    assert without_repeats(rows) == rows


def test_another_choice_is_told_once_and_by_the_summary():
    rows = [
        Row(file, "variant", metric(file, "variant"), "fp32", "fp16", "changed")
        for file in ("optimize", "profile", "summary")
    ]
    assert without_repeats(rows) == rows[-1:]
    assert without_repeats(rows[:1]) == rows[:1]


def test_of_another_variant_the_summary_s_own_rows_are_told():
    rows = [Row("summary", "size_mb", metric("summary", "size_mb"), 0.08, 0.25, "worse")]
    other = Row("quantize_static", "size_mb", metric("quantize_static", "size_mb"), 0.08, 0.09, "worse")
    assert without_repeats([other, *rows]) == [other, *rows]


def test_a_comment_stays_short():
    base = changed(
        FILES, "metrics/digits_cnn/export.json", **{f"part_{number}": 1 for number in range(COMMENT_ROWS + 9)}
    )
    head = changed(
        FILES, "metrics/digits_cnn/export.json", **{f"part_{number}": 2 for number in range(COMMENT_ROWS + 9)}
    )
    text = as_markdown(compared(head, base), everything=False)
    assert text.count("| changed |") == COMMENT_ROWS
    assert "- 9 more differ: `python -m tools.compare` prints all of them" in text


def row(base, head, **fields):
    return Row("file", "key", Metric("", better="lower", file="file", key="key", **fields), base, head)


@pytest.mark.parametrize(
    ("base", "head", "fields", "shown"),
    [
        (2.0, 2.5, {"unit": "ms", "noise": "load"}, "+25.0 %"),
        (30.0, 28.5, {"unit": "dB"}, "-1.5 dB"),
        (0.9, 0.85, {}, "-0.05"),
        (40, 43, {}, "+3"),
        (2.0, 1.0, {}, "-50.0 %"),
        (0.8, 0.4, {"noise": "speedup"}, "-50.0 %"),
        (0, 2.0, {}, "+2"),
        (3, 3, {}, ""),
        (True, False, {}, ""),
        (None, 3, {}, ""),
        ("a", "b", {}, ""),
    ],
)
def test_a_change_is_a_share_of_the_base_except_for_shares_decibels_and_counts(base, head, fields, shown):
    assert change(row(base, head, **fields)) == shown


def test_a_value_has_its_unit_its_interval_and_the_digits_that_tell_it_from_the_other():
    one = Row("validate/fp32", "sqnr_db", metric("validate/fp32", "sqnr_db"), 22.6512, 22.6541)
    assert (value(one.base, None, one), value(one.head, None, one)) == ("22.651 dB", "22.654 dB")
    assert value(22.6544, (20.0, 25.25), row(22.6544, 22.6544)) == "22.7 [20, 25.2]"
    assert value(None, None, one) == "–"
    assert (value(True, None, one), value(False, None, one)) == ("yes", "no")
    assert value("a" * 60, None, one) == "a" * 47 + "…"
