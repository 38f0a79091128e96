"""Print the comment on a pull request, in Markdown, from the folder that `.ci/review` has written.

    python -m tools.pull_request_comment FOLDER --result success

It needs no package, so that the job that may write comments installs none.
"""

import argparse
import re
from pathlib import Path

from onnx_release.core.command import run_tool

# The most characters of a comment: https://docs.github.com/rest/issues/comments
LIMIT = 65_536
PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?://)[^)]*\)[ \t]*(?:\n|$)", re.MULTILINE)


def main(arguments: argparse.Namespace) -> None:
    print(comment_body(arguments.folder, arguments.result, arguments.artifact))


def comment_body(folder: Path, result: str, artifact: str = "") -> str:
    """Write the comment in Markdown, in at most `LIMIT` characters: verdict, release and failing gates first.

    `folder` may have gate.txt, comparison.md and report/report.md; missing ones are left out. `result` is the job's,
    "success" or another word. `artifact` is the address from which the folder can be downloaded.
    """
    gates = read(folder / "gate.txt")
    comparison = read(folder / "comparison.md")
    model, release, variants = split_report(without_pictures(read(folder / "report/report.md")))
    parts = [f"## {model}: {'passed' if result == 'success' else 'FAILED'}"] if model else []
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
    return shorten("\n\n".join(part for part in parts if part))


def split_report(report: str) -> tuple[str, str, str]:
    """Split a report, whose title is `# MODEL: VERDICT`, into the model's name, the text on the release, and tables."""
    title, _, rest = report.partition("\n")
    release, _, tables = rest.partition("\n|")
    return title.removeprefix("# ").partition(":")[0], release.strip(), tables and f"|{tables}"


def failing(gates: str) -> str:
    """Return the lines of `tools.gate` that say why it exits with code 1."""
    return "\n".join(line for line in gates.splitlines() if re.search(r": FAILED[,:]|: not measured, |^error: ", line))


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
    """Return at most `LIMIT` characters of whole lines; if some are cut, the line after the first says so."""
    if len(text) <= LIMIT:
        return text
    note = f"\n_Cut at {LIMIT:,} characters, the most that a comment may have._\n"
    first, rest = text.split("\n", 1)
    kept = rest[: LIMIT - len(first) - len(note) - 1]
    return f"{first}\n{note}{kept[: kept.rindex(chr(10))]}"


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
