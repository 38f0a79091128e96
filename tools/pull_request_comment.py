"""Print the comment on a pull request, in Markdown, from the folder that `.ci/review` has written.

    python -m tools.pull_request_comment FOLDER --result success

It needs no package, so that the job that may write comments installs none.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from onnx_release.core.command import run_tool

# The most characters of a comment: https://docs.github.com/rest/issues/comments
LIMIT = 65_536
FAILING = re.compile(r": FAILED[,:]|: not measured, |^error: ")
PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?://)[^)]*\)[ \t]*(?:\n|$)", re.MULTILINE)


def main(arguments: argparse.Namespace) -> None:
    print(comment_body(arguments.folder, arguments.result, arguments.artifact))


def comment_body(folder: Path, result: str, artifact: str = "") -> str:
    """Write the comment in Markdown, in at most `LIMIT` characters: a line for each model and failing gates first.

    `folder` may have comparison.md, gate.txt, runs.md and report/NAME/report.md; missing ones are left out. `result` is
    the job's, "success" or another word. `artifact` is the address from which the folder can be downloaded.
    """
    gates = read(folder / "gate.txt")
    failing = failing_by_model(gates)
    lines, comparison = split_comparison(read(folder / "comparison.md"))
    parts = [mark_failed(lines, failing), verdict(result, gates)]
    if gates and result != "success":
        reasons = [line for name, found in failing.items() for line in (f"{name}:" if name else "", *found)]
        parts.append(fenced("\n".join(reasons).strip() or gates))
    parts.append(read(folder / "runs.md"))
    if artifact:
        parts.append(f"[The reports with their pictures]({artifact}): unpack them and open `report/NAME/index.html`.")
    parts.append(comparison)
    if gates:
        parts.append(folded("All gates", fenced(gates)))
    for report in sorted(folder.glob("report/*/report.md")):
        text = without_pictures(read(report)).partition("\n")[2].strip()  # without its title
        parts.append(folded(f"Report of {report.parent.name}", text))
    return shorten("\n\n".join(part for part in parts if part))


def split_comparison(comparison: str) -> tuple[str, str]:
    """Split what `tools.compare` writes: the table with a line for each model, and the rest. An error has no table."""
    lines, _, rest = comparison.partition("\n\n")
    return (lines, rest) if lines.startswith("|") else ("", comparison)


def failing_by_model(gates: str) -> dict[str, list[str]]:
    """Return the lines of `tools.gate --all` that say why it exits with code 1, by the model that they follow."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in gates.splitlines():
        if re.fullmatch(r"[\w ]+:", line):
            name = line.removesuffix(":")
        elif FAILING.search(line):
            found.setdefault(name, []).append(line)
    return found


def mark_failed(lines: str, failing: Mapping[str, object]) -> str:
    """Say FAILED in the last cell of each model whose checks fail."""
    header, models = lines.splitlines()[:2], lines.splitlines()[2:]
    return "\n".join([*header, *(mark_line(line) if cells(line)[0] in failing else line for line in models)])


def mark_line(line: str) -> str:
    """Say FAILED in the last cell of a line, unless it does so already."""
    name, release, verdict = cells(line)
    rest = [part for part in verdict.split(", ") if part != "passed"]
    return line if "FAILED" in verdict else f"| {name} | {release} | {', '.join(['**FAILED**', *rest])} |"


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def folded(title: str, text: str) -> str:
    """Wrap a part of the comment that opens on a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def verdict(result: str, gates: str) -> str:
    if result == "success":
        left = len(re.findall(": not checked, ", gates))
        return f"**No gate fails, and {left} could not be checked.**" if left else "**Every gate passes.**"
    if gates:
        noisy = len(re.findall(": not measured, ", gates))
        if noisy and not re.search(r": FAILED[,:]|^error: ", gates, re.MULTILINE):
            return (
                f"**The checks failed:** {noisy} {'gate was' if noisy == 1 else 'gates were'} not measured, see below."
            )
        return "**The checks failed:** a gate fails, or could not be checked."
    return "**The pipeline failed** before the gates: the run's log says at which stage."


def fenced(text: str) -> str:
    """Wrap a text in a block of plain text, with a fence longer than those in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def without_pictures(text: str) -> str:
    """Remove pictures on lines of their own that are files beside the report: a comment cannot show them."""
    return re.sub(r"\n{3,}", "\n\n", PICTURE.sub("", text)).strip()


def shorten(text: str) -> str:
    """Return at most `LIMIT` characters of whole lines; if some are cut, the second paragraph says so."""
    if len(text) <= LIMIT:
        return text
    note = f"\n_Cut at {LIMIT:,} characters, the most that a comment may have._\n"
    first, rest = text.split("\n\n", 1)
    kept = rest[: LIMIT - len(first) - len(note) - 2]
    return f"{first}\n{note}\n{kept[: kept.rindex(chr(10))]}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="the folder that `.ci/review` has written")
    made.add_argument("--result", required=True, help="how the job ended: success, or another word")
    made.add_argument(
        "--artifact", default="", metavar="URL", help="the address from which the folder can be downloaded"
    )
    return made


if __name__ == "__main__":
    run_tool(main, parser())
