"""The comment on a pull request, from the folder that `.ci/review` has written: printed, or posted.

    python -m tools.pull_request_comment FOLDER --result success             # print it
    python -m tools.pull_request_comment FOLDER --result success --post 7    # post it to pull request 7

Each pull request has one such comment: the second run updates what the first has posted. Posting needs what GitHub
Actions sets, GITHUB_REPOSITORY and GITHUB_API_URL, and GITHUB_TOKEN. Needs no package, so that the job that
may write installs none.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError, StorageError

# What the comment is found by.
MARKER = "<!-- onnx-release: the report of this pull request -->"
# Whose comments are updated: everybody can write the marker, and GITHUB_TOKEN may change everybody's comments.
AUTHOR = "github-actions[bot]"
# Characters of a comment, at most: https://docs.github.com/rest/issues/comments
LIMIT = 65_536
PAGE = 100
TIMEOUT_SECONDS = 30
PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?://)[^)]*\)[ \t]*(?:\n|$)", re.MULTILINE)


def main(arguments: argparse.Namespace) -> None:
    text = body(arguments.folder, arguments.result, arguments.artifact)
    if arguments.post is None:
        print(text)
        return
    print(post(text, arguments.post))


def body(folder: Path, result: str, artifact: str = "") -> str:
    """The comment in Markdown, of at most `LIMIT` characters: verdict, release and failing gates first.

    `folder` may have gate.txt, comparison.md and report/report.md; what the run did not come to is left out. `result`
    is the job's, "success" or another word. `artifact` is where the folder can be downloaded.
    """
    gates = read(folder / "gate.txt")
    comparison = read(folder / "comparison.md")
    model, release, variants = divided(without_pictures(read(folder / "report/report.md")))
    parts = [MARKER]
    if model:
        parts.append(f"## {model}: {'passed' if result == 'success' else 'FAILED'}")
    parts += [release, verdict(result, gates)]
    if gates and result != "success":
        parts.append(fenced(failing(gates) or gates))
    if artifact:
        parts.append(f"[The report with its pictures]({artifact}): unpack it and open `report/index.html`.")
    parts.append(comparison)
    if gates:
        parts.append(folded("All gates", fenced(gates)))
    if variants:
        parts.append(folded("All variants", variants))
    return cut("\n\n".join(part for part in parts if part))


def divided(report: str) -> tuple[str, str, str]:
    """The model's name, what is released, and the tables, of a report whose title is `# MODEL: VERDICT`."""
    title, _, rest = report.partition("\n")
    release, _, tables = rest.partition("\n|")
    return title.removeprefix("# ").partition(":")[0], release.strip(), tables and f"|{tables}"


def failing(gates: str) -> str:
    """The lines of what `tools.gate` prints that tell why it exits with 1."""
    return "\n".join(line for line in gates.splitlines() if re.search(r": FAILED[,:]|: not measured, |^error: ", line))


def folded(title: str, text: str) -> str:
    """A part of the comment that opens on a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def verdict(result: str, gates: str) -> str:
    if result == "success":
        left = len(re.findall(": not held, ", gates))
        return f"**No gate fails, and {left} could not be held.**" if left else "**Every gate holds.**"
    if gates:
        noisy = len(re.findall(": not measured, ", gates))
        if noisy and not re.search(r": FAILED[,:]|^error: ", gates, re.MULTILINE):
            return (
                f"**The checks failed:** {noisy} {'gate was' if noisy == 1 else 'gates were'} not measured, see below."
            )
        return "**The checks failed:** a gate does not hold, or could not be held."
    return "**The pipeline failed** before it came to the gates: the run's log says at which stage."


def fenced(text: str) -> str:
    """A block of plain text, whatever fences are in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def without_pictures(text: str) -> str:
    """Without the pictures in lines of their own that lie beside the report, where a comment does not reach."""
    return re.sub(r"\n{3,}", "\n\n", PICTURE.sub("", text)).strip()


def cut(text: str) -> str:
    """At most `LIMIT` characters, whole lines; what is cut off is said in the comment's second line."""
    if len(text) <= LIMIT:
        return text
    note = f"\n_Cut at {LIMIT:,} characters, the most that a comment may have._\n"
    first, rest = text.split("\n", 1)
    kept = rest[: LIMIT - len(first) - len(note) - 1]
    return f"{first}\n{note}{kept[: kept.rindex(chr(10))]}"


def post(text: str, pull_request: int) -> str:
    """Create the comment of a pull request or update the one that there is; gives its address.

    Raises DataError if the environment does not say where to post it, StorageError if GitHub does not take it.
    """
    comments = f"/repos/{setting('GITHUB_REPOSITORY')}/issues/{pull_request}/comments"
    found = own_comment(comments)
    if found is None:
        made = call("POST", comments, {"body": text})
    else:
        made = call("PATCH", f"/repos/{setting('GITHUB_REPOSITORY')}/issues/comments/{found}", {"body": text})
    return str(made["html_url"])


def own_comment(comments: str) -> int | None:
    """The id of the comment that an earlier run has posted, or None. There may be many pages of others."""
    page = 1
    while listed := call("GET", f"{comments}?per_page={PAGE}&page={page}"):
        for comment in listed:
            # A user whose account is gone is null, and so may be a body.
            author = (comment["user"] or {}).get("login")
            if author == AUTHOR and (comment["body"] or "").startswith(MARKER):
                return int(comment["id"])
        page += 1
    return None


def call(method: str, path: str, content: dict[str, str] | None = None) -> Any:
    """The answer of GitHub's REST API. Raises StorageError with GitHub's own words if it refuses."""
    request = Request(
        setting("GITHUB_API_URL") + path,
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Authorization": f"Bearer {setting('GITHUB_TOKEN')}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise StorageError(f"GitHub refused {method} {path}: {refusal(error)}") from error
    except (URLError, TimeoutError) as error:
        raise StorageError(f"{request.host} cannot be reached ({error}): run the job again") from error


def refusal(error: HTTPError) -> str:
    """What GitHub says, and what to do."""
    try:
        said = json.load(error)["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    hints = {
        401: "GITHUB_TOKEN is not valid, or no longer",
        403: "the job's token may not write comments. It needs `pull-requests: write`; runs of forks never get it",
        404: "there is no such repository or pull request, or the token may not see it",
    }
    hint = hints.get(error.code, "run the job again")
    return f"{error.code}, {said} ({hint})"


def setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise DataError(f"{name} is not set: GitHub Actions sets it, and the workflow passes the token on")
    return value.rstrip("/")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="what `.ci/review` has written")
    made.add_argument("--result", required=True, help="how the job ended: success, or another word")
    made.add_argument("--artifact", default="", metavar="URL", help="where the folder can be downloaded")
    made.add_argument("--post", type=int, metavar="NUMBER", help="post it to this pull request")
    return made


if __name__ == "__main__":
    run_tool(main, parser())
