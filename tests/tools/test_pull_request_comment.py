"""The comment on a pull request: what is in it."""

import subprocess
import sys

import pytest

from tests.imports import ROOT
from tools.pull_request_comment import LIMIT, comment_body


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "report").mkdir()
    report = "# digits: passed\n\nRelease fp32: 1 MB.\n\n![A picture](latency.svg)\n\n| a |\n|---|\n| 1 |\n\nEnd.\n"
    (tmp_path / "report/report.md").write_text(report)
    (tmp_path / "comparison.md").write_text(
        "### Compared with main\n\n| metric | verdict |\n|---|---|\n| accuracy | no difference |\n"
    )
    (tmp_path / "gate.txt").write_text("fp32: passed\n")
    return tmp_path


def test_it_is_printed_without_any_package(folder):
    """The job that posts it has no site-packages."""
    command = [sys.executable, "-S", "-m", "tools.pull_request_comment", folder, "--result", "success"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", comment_body(folder, "success") + "\n")


def test_the_comment_has_the_verdict_first_and_last_the_gates_and_the_report_without_its_pictures(folder):
    text = comment_body(folder, "success", "https://github.com/owner/project/actions/runs/1/artifacts/2")
    assert text.startswith(
        "## digits: passed\n\nRelease fp32: 1 MB.\n\n**Every gate passes.**\n\n"
        "[The report with its pictures](https://github.com/"
    )
    assert text.index("### Compared") < text.index(
        "<details><summary>All gates</summary>\n\n```text\nfp32: passed\n```"
    )
    assert text.endswith("<details><summary>All variants</summary>\n\n| a |\n|---|\n| 1 |\n\nEnd.\n\n</details>")
    with (folder / "gate.txt").open("a") as file:
        file.write("summary.size_mb: not checked, max_regression 1: another machine\n")
    assert "**No gate fails, and 1 could not be checked.**" in comment_body(folder, "success")


def test_only_pictures_beside_the_report_are_left_out(folder):
    pictures = "a ![b](c.svg)\n![d](https://example.invalid/e.svg)\n![f](g.svg)"
    (folder / "report/report.md").write_text(f"# digits: passed\n{pictures}\n|h|")
    assert "\n\na ![b](c.svg)\n![d](https://example.invalid/e.svg)\n\n" in comment_body(folder, "success")


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


def test_what_the_run_did_not_come_to_is_said(folder, tmp_path):
    with (folder / "gate.txt").open("a") as file:
        file.write("fp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\n")
    failed = comment_body(folder, "failure")
    reasons = "```text\nfp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\n```"
    assert failed.startswith("## digits: FAILED\n\nRelease fp32: 1 MB.\n\n**The checks failed:** a gate fails")
    assert failed.index(reasons) < failed.index("### Compared")
    (folder / "gate.txt").unlink()
    assert "**The pipeline failed** before the gates" in comment_body(folder, "failure")
    assert comment_body(tmp_path / "missing", "failure").count("\n") == 0


@pytest.mark.parametrize("extra", [0, 1])
def test_a_comment_is_cut_at_github_s_limit(folder, extra):
    last = folder / "comparison.md"  # without the others, which come after it
    (folder / "gate.txt").unlink()
    (folder / "report/report.md").unlink()
    last.write_text("x")
    free = LIMIT - len(comment_body(folder, "success")) + 1 + extra
    last.write_text("first" + "x" * (free % 100 + 95) + ("\n" + "x" * 99) * (free // 100 - 1))
    text = comment_body(folder, "success")
    assert text.startswith("**Every gate") and text.endswith("\n" + "x" * 99)
    assert len(text) == LIMIT if extra == 0 else len(text) < LIMIT
    assert ("\n_Cut at 65,536 characters" in text) == (extra == 1)
