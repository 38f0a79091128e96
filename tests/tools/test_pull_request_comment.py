"""The comment on a pull request: what is in it."""

import subprocess
import sys

import pytest

from tests.imports import ROOT
from tools.pull_request_comment import LIMIT, comment_body

HEADER = "| model | release | verdict |\n| --- | --- | --- |\n"
COMPARISON = f"""{HEADER}| digits | fp32 | passed, nothing moved |
| digits_large | fp32, now fp16 | **2 worse**, 1 better |

Compared with main. Head is the workspace.

### digits_large

| metric | verdict |
|---|---|
| accuracy | worse |
"""
REPORT = "# {}: passed\n\nRelease fp32: 1 MB.\n\n![A picture](latency.svg)\n\n| a |\n|---|\n| 1 |\n\nEnd.\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("digits", "digits_large"):
        (tmp_path / "report" / name).mkdir(parents=True)
        (tmp_path / "report" / name / "report.md").write_text(REPORT.format(name))
    (tmp_path / "comparison.md").write_text(COMPARISON)
    (tmp_path / "gate.txt").write_text("digits:\nfp32: passed\ndigits_large:\nfp32: passed\n")
    (tmp_path / "runs.md").write_text("This change touches these models, which were run: digits, digits_large.\n")
    return tmp_path


def test_it_is_printed_without_any_package(folder):
    """The job that posts it has no site-packages."""
    command = [sys.executable, "-S", "-m", "tools.pull_request_comment", folder, "--result", "success"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", comment_body(folder, "success") + "\n")


def test_the_comment_has_the_models_first_and_last_the_gates_and_the_reports_without_their_pictures(folder):
    text = comment_body(folder, "success", "https://github.com/owner/project/actions/runs/1/artifacts/2")
    assert text.startswith(
        f"{HEADER}| digits | fp32 | passed, nothing moved |\n"
        "| digits_large | fp32, now fp16 | **2 worse**, 1 better |\n\n"
        "**Every gate passes.**\n\n"
        "This change touches these models, which were run: digits, digits_large.\n\n"
        "[The reports with their pictures](https://github.com/owner/project/actions/runs/1/artifacts/2): "
        "unpack them and open `report/NAME/index.html`.\n\n"
        "Compared with main. Head is the workspace.\n\n### digits_large\n"
    )
    assert text.count("nothing moved") == 1
    gates = "<details><summary>All gates</summary>\n\n```text\ndigits:\nfp32: passed\ndigits_large:\nfp32: passed\n```"
    assert text.index("| accuracy | worse |") < text.index(gates)
    content = "Release fp32: 1 MB.\n\n| a |\n|---|\n| 1 |\n\nEnd."
    reports = [
        f"<details><summary>Report of {name}</summary>\n\n{content}\n\n</details>"
        for name in ("digits", "digits_large")
    ]
    assert text.endswith("\n\n".join(reports))
    with (folder / "gate.txt").open("a") as file:
        file.write("summary.size_mb: not checked, max_regression 1: another machine\n")
    assert "**No gate fails, and 1 could not be checked.**" in comment_body(folder, "success")


def test_what_was_not_run_has_no_report_and_the_comment_says_what_was_run(folder):
    for name in ("digits", "digits_large"):
        (folder / "report" / name / "report.md").unlink()
    said = "This change touches no model, so none was run: the committed metrics are compared."
    (folder / "runs.md").write_text(f"{said}\n")
    text = comment_body(folder, "success")
    assert f"\n\n**Every gate passes.**\n\n{said}\n\nCompared with main." in text
    assert "Report of" not in text


def test_only_pictures_beside_the_report_are_left_out(folder):
    pictures = "a ![b](c.svg)\n![d](https://example.invalid/e.svg)\n![f](g.svg)"
    (folder / "report/digits/report.md").write_text(f"# digits: passed\n{pictures}\n|h|")
    assert "\n\na ![b](c.svg)\n![d](https://example.invalid/e.svg)\n|h|\n\n" in comment_body(folder, "success")


def test_a_fence_in_the_gates_stays_inside(folder):
    (folder / "gate.txt").write_text("a ```` b\n# c")
    assert "\n`````text\na ```` b\n# c\n`````\n" in comment_body(folder, "failure")


def test_gates_that_were_not_measured_are_told_from_those_that_fail(folder):
    noisy = "benchmark.fp32.load_ms: not measured, 1 to 2 ms: the noise is more than the bound (max_regression 1)\n"
    (folder / "gate.txt").write_text(noisy * 2)
    assert "**The checks failed:** 2 gates were not measured, see below." in comment_body(folder, "failure")
    (folder / "gate.txt").write_text(noisy)
    assert "**The checks failed:** 1 gate was not measured, see below." in comment_body(folder, "failure")
    for failed in ("export.size_mb: FAILED, 2 (max 1)\n", "fp16: FAILED: the SQNR is 3 dB\n", "error: no base\n"):
        (folder / "gate.txt").write_text(noisy + failed)
        assert "**The checks failed:** a gate fails" in comment_body(folder, "failure")


def test_what_fails_stands_below_its_model_and_in_the_model_s_line(folder):
    (folder / "gate.txt").write_text(
        "digits:\nfp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\nfp32: passed\n"
        "digits_large:\nfp32: passed\n"
        "all models:\nsummary.x: FAILED, no model has such a metric\n"
        "digits:\npipeline: FAILED: the log of this run says at which stage\n"
    )
    text = comment_body(folder, "failure")
    assert text.startswith(
        f"{HEADER}| digits | fp32 | **FAILED**, nothing moved |\n"
        "| digits_large | fp32, now fp16 | **2 worse**, 1 better |\n\n"
        "**The checks failed:** a gate fails, or could not be checked.\n\n"
        "```text\ndigits:\nfp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\n"
        "pipeline: FAILED: the log of this run says at which stage\n"
        "all models:\nsummary.x: FAILED, no model has such a metric\n```\n"
    )


def test_a_line_that_says_failed_stays_and_what_has_moved_is_kept(folder):
    lines = "| digits | fp32 | **FAILED** (fp16), **1 worse** |\n| digits_large | fp32 | **2 worse**, 1 better |"
    (folder / "comparison.md").write_text(f"{HEADER}{lines}\n\nCompared.\n")
    (folder / "gate.txt").write_text("digits:\na: FAILED, 1\ndigits_large:\nb: not measured, 1\n")
    assert comment_body(folder, "failure").startswith(
        f"{HEADER}| digits | fp32 | **FAILED** (fp16), **1 worse** |\n"
        "| digits_large | fp32 | **FAILED**, **2 worse**, 1 better |\n\n"
    )


def test_a_comparison_that_is_an_error_follows_the_verdict(folder):
    (folder / "comparison.md").write_text("error: main has no models\n")
    (folder / "gate.txt").write_text("error: main has no models\n")
    text = comment_body(folder, "failure")
    assert text.startswith("**The checks failed:** a gate fails, or could not be checked.\n\n```text\nerror: main has")
    assert "\n\nerror: main has no models\n\n<details>" in text


def test_what_the_run_did_not_come_to_is_said(folder, tmp_path):
    (folder / "gate.txt").unlink()
    assert "**The pipeline failed** before the gates" in comment_body(folder, "failure")
    assert comment_body(tmp_path / "missing", "failure").count("\n") == 0


@pytest.mark.parametrize("extra", [0, 1])
def test_a_comment_is_cut_at_github_s_limit_below_the_models(folder, extra):
    last = folder / "comparison.md"  # without the others, which come after it
    (folder / "gate.txt").unlink()
    (folder / "runs.md").unlink()
    for name in ("digits", "digits_large"):
        (folder / "report" / name / "report.md").unlink()
    last.write_text(f"{HEADER}| digits | fp32 | gone |\n\nx")
    free = LIMIT - len(comment_body(folder, "success")) + 1 + extra
    rows = "first" + "x" * (free % 100 + 95) + ("\n" + "x" * 99) * (free // 100 - 1)
    last.write_text(f"{HEADER}| digits | fp32 | gone |\n\n{rows}")
    text = comment_body(folder, "success")
    cut = "_Cut at 65,536 characters, the most that a comment may have._\n\n" if extra else ""
    assert text.startswith(f"{HEADER}| digits | fp32 | gone |\n\n{cut}**Every gate passes.**\n\nfirst")
    assert text.endswith("\n" + "x" * 99)
    assert len(text) == LIMIT if extra == 0 else len(text) < LIMIT
