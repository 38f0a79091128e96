"""The comment on a pull request: what is in it, and that there is one, on a server with GitHub's three endpoints."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.imports import ROOT
from tools.pull_request_comment import AUTHOR, LIMIT, MARKER, body

COMMENTS = "/repos/owner/project/issues/7/comments"


class Server(ThreadingHTTPServer):
    """The comments of one pull request, as GitHub lists, creates and updates them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # Everybody's but ours, over more than one page; one has the marker, one an account that is gone.
        self.comments: list[dict[str, Any]] = [
            {"id": number, "user": {"login": "someone"}, "body": f"comment {number}"} for number in range(150)
        ]
        self.comments[3]["body"] = f"{MARKER}\nnot the bot's"
        self.comments[4]["user"] = None
        self.comments[5].update(user={"login": AUTHOR}, body="of another workflow")
        self.requests: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, content: object) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def allowed(self) -> bool:
        self.server.requests.append(self.command)
        if self.headers["Authorization"] == "Bearer writes":
            return True
        self.answer(403, {"message": "Resource not accessible by integration"})
        return False

    def sent(self) -> str:
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        assert url.path == COMMENTS
        if self.allowed():
            query = {key: int(values[0]) for key, values in parse_qs(url.query).items()}
            start = query["per_page"] * (query["page"] - 1)
            self.answer(200, self.server.comments[start : start + query["per_page"]])

    def do_POST(self) -> None:
        assert self.path == COMMENTS
        text = self.sent()
        if self.allowed():
            number = len(self.server.comments)
            self.server.comments.append({"id": number, "user": {"login": AUTHOR}, "body": text})
            self.answer(201, {"html_url": f"https://github.com/owner/project/pull/7#issuecomment-{number}"})

    def do_PATCH(self) -> None:
        prefix, number = self.path.rsplit("/", 1)
        assert prefix == "/repos/owner/project/issues/comments"
        text = self.sent()
        if self.allowed():
            self.server.comments[int(number)]["body"] = text
            self.answer(200, {"html_url": f"https://github.com/owner/project/pull/7#issuecomment-{number}"})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


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


def posted(folder, server, token="writes", **settings):
    """Without site-packages, which the job that posts does not have."""
    command = [sys.executable, "-S", "-m", "tools.pull_request_comment", folder, "--result", "success", "--post", "7"]
    environment = {
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
        "GITHUB_REPOSITORY": "owner/project",
        "GITHUB_TOKEN": token,
        **settings,
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_second_run_updates_the_comment_of_the_first(folder, server):
    others = [dict(comment) for comment in server.comments]
    first = posted(folder, server)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "https://github.com/owner/project/pull/7#issuecomment-150\n"
    (folder / "comparison.md").write_text("| accuracy | worse |\n")
    second = posted(folder, server)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert server.comments[:-1] == others
    assert server.comments[-1]["body"] == body(folder, "success")
    assert "worse" in server.comments[-1]["body"]
    assert [request for request in server.requests if request != "GET"] == ["POST", "PATCH"]


def test_a_token_that_cannot_write_is_named(folder, server):
    result = posted(folder, server, token="reads")
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
    assert "403, Resource not accessible by integration" in result.stderr
    assert "`pull-requests: write`" in result.stderr


def test_a_server_that_is_not_there_and_a_setting_that_is_missing_are_named(folder, server):
    result = posted(folder, server, GITHUB_API_URL="http://127.0.0.1:9")
    assert result.returncode == 1
    assert result.stderr.startswith("error: 127.0.0.1:9 cannot be reached")
    result = posted(folder, server, token="")
    assert result.returncode == 1
    assert result.stderr.startswith("error: GITHUB_TOKEN is not set")


def test_the_comment_has_the_verdict_first_and_last_the_gates_and_the_report_without_its_pictures(folder):
    text = body(folder, "success", "https://github.com/owner/project/actions/runs/1/artifacts/2")
    assert text.startswith(
        f"{MARKER}\n\n## digits: passed\n\nRelease fp32: 1 MB.\n\n**Every gate holds.**\n\n"
        "[The report with its pictures](https://github.com/"
    )
    assert text.index("### Compared") < text.index(
        "<details><summary>All gates</summary>\n\n```text\nfp32: passed\n```"
    )
    assert text.endswith("<details><summary>All variants</summary>\n\n| a |\n|---|\n| 1 |\n\nEnd.\n\n</details>")
    with (folder / "gate.txt").open("a") as file:
        file.write("summary.size_mb: not held, max_regression 1: another machine\n")
    assert "**No gate fails, and 1 could not be held.**" in body(folder, "success")


def test_only_pictures_beside_the_report_are_left_out(folder):
    pictures = "a ![b](c.svg)\n![d](https://example.invalid/e.svg)\n![f](g.svg)"
    (folder / "report/report.md").write_text(f"# digits: passed\n{pictures}\n|h|")
    assert "\n\na ![b](c.svg)\n![d](https://example.invalid/e.svg)\n\n" in body(folder, "success")


def test_a_fence_in_the_gates_stays_inside(folder):
    (folder / "gate.txt").write_text("a ```` b\n# c")
    assert "\n`````text\na ```` b\n# c\n`````\n" in body(folder, "failure")


def test_gates_that_were_not_measured_are_told_from_those_that_fail(folder):
    noisy = "benchmark.fp32.load_ms: not measured, 1 to 2 ms: the noise is more than the bound (max_regression 1)\n"
    (folder / "gate.txt").write_text(noisy * 2)
    assert "**The checks failed:** 2 gates were not measured, see below." in body(folder, "failure")
    (folder / "gate.txt").write_text(noisy)
    assert "**The checks failed:** 1 gate was not measured, see below." in body(folder, "failure")
    for failed in ("export.size_mb: FAILED, 2 (max 1)\n", "fp16: FAILED: the SQNR is 3 dB\n", "error: no base\n"):
        (folder / "gate.txt").write_text(noisy + failed)
        assert "**The checks failed:** a gate does not hold" in body(folder, "failure")


def test_what_the_run_did_not_come_to_is_said(folder, tmp_path):
    with (folder / "gate.txt").open("a") as file:
        file.write("fp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\n")
    failed = body(folder, "failure")
    reasons = "```text\nfp16: FAILED: the SQNR is 3 dB\nsummary.size_mb: FAILED, 2 (max 1)\n```"
    assert failed.startswith(
        f"{MARKER}\n\n## digits: FAILED\n\nRelease fp32: 1 MB.\n\n**The checks failed:** a gate does not"
    )
    assert failed.index(reasons) < failed.index("### Compared")
    (folder / "gate.txt").unlink()
    assert "**The pipeline failed** before it came to the gates" in body(folder, "failure")
    assert body(tmp_path / "missing", "failure").count("\n") == 2


@pytest.mark.parametrize("extra", [0, 1])
def test_a_comment_is_cut_at_github_s_limit(folder, extra):
    last = folder / "comparison.md"  # without the others, which come after it
    (folder / "gate.txt").unlink()
    (folder / "report/report.md").unlink()
    last.write_text("x")
    free = LIMIT - len(body(folder, "success")) + 1 + extra
    last.write_text("first" + "x" * (free % 100 + 95) + ("\n" + "x" * 99) * (free // 100 - 1))
    text = body(folder, "success")
    assert text.startswith(MARKER) and text.endswith("\n" + "x" * 99)
    assert len(text) == LIMIT if extra == 0 else len(text) < LIMIT
    assert ("\n_Cut at 65,536 characters" in text) == (extra == 1)
