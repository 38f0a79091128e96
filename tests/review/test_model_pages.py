"""What is written of several models: their lines first, then the metrics of those that have moved."""

import json

import pytest

from onnx_release.review.model_pages import as_json, as_markdown, as_text, bold
from onnx_release.review.side_by_side import compare_models
from tests.review.test_side_by_side import compared

pytestmark = pytest.mark.usefixtures("fewer_resamples")


def written(page, everything=False):
    base, head = compared()
    return page(compare_models(base, head), base, head, everything)


def test_the_table_of_a_terminal_begins_with_the_models():
    lines = written(as_text).splitlines()
    assert lines[:8] == [
        "model    release      verdict",
        "a        int8_static  passed, nothing moved",
        "a_large  int8_static  1 worse",
        "old      int8_static  gone",
        "young    int8_static  new, passed",
        "",
        "base  main (1234567)",
        "head  the workspace",
    ]
    assert lines[9].startswith("a_large: 1 worse, ")
    rows = [line for line in lines if line.startswith("worse")]
    assert [row.split() for row in rows] == [["worse", "export.nodes", "40", "41", "+1"]]


def headings(text, start):
    return [line.removeprefix(start).partition(":")[0] for line in text.splitlines() if line.startswith(start)]


def test_markdown_begins_with_the_models_and_has_a_heading_for_each_that_has_moved():
    text = written(as_markdown)
    assert text.startswith(
        "| model | release | verdict |\n| --- | --- | --- |\n"
        "| a | int8_static | passed, nothing moved |\n"
        "| a_large | int8_static | **1 worse** |\n"
        "| old | int8_static | gone |\n"
        "| young | int8_static | new, passed |\n\n"
        "Compared with main (1234567). Head is the workspace.\n\n"
        "### a_large\n\n**1 worse, "
    )
    assert headings(text, "### ") == ["a_large"]
    assert text.count("| **worse** | `export.nodes` | 40 | 41 | +1 |") == 1


def test_with_all_metrics_every_model_that_both_sides_have_has_its_rows():
    assert headings(written(as_markdown, everything=True), "### ") == ["a", "a_large"]
    text = written(as_text, everything=True)
    assert text.count(" export.opset ") == 2


def test_json_is_a_list_of_the_models():
    base, head = compared()
    found = json.loads(json.dumps(as_json(compare_models(base, head), base, head)))
    assert [(one["model"], one["verdict"]) for one in found] == [
        ("a", "passed, nothing moved"), ("a_large", "1 worse"), ("old", "gone"), ("young", "new, passed"),
    ]  # fmt: skip
    assert {(one["base"], one["head"]) for one in found} == {("main (1234567)", "the workspace")}
    assert [(one["base_release"], one["head_release"]) for one in found[1:]] == [
        ("int8_static", "int8_static"), ("int8_static", None), (None, "int8_static"),
    ]  # fmt: skip
    assert [one["counts"]["worse"] for one in found] == [0, 1, 0, 0]
    assert len(found[0]["rows"]) == len(found[1]["rows"]) > 50 and found[2]["rows"] == found[3]["rows"] == []


def test_what_is_bad_is_bold():
    assert bold("FAILED (fp16), 12 worse, 1 better") == "**FAILED** (fp16), **12 worse**, 1 better"
    assert bold("passed, nothing moved") == "passed, nothing moved"
