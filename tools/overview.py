"""Write one page on all models of models.yaml, from their metrics: what is released, how fast and how exact it is.

The pages are artifacts/overview.html and artifacts/overview.md; a model without metrics has a row that says what to
run.
"""

import argparse
import sys

from onnx_release.core.command import run_tool
from onnx_release.core.files import write_text
from onnx_release.core.model_list import load_models, unlisted_note
from onnx_release.core.paths import ARTIFACTS
from onnx_release.report.overview import describe_passed, read_rows, render_html, render_markdown

HTML, MARKDOWN = ARTIFACTS / "overview.html", ARTIFACTS / "overview.md"


def main(_: argparse.Namespace) -> None:
    rows = read_rows(load_models())
    write_text(HTML, render_html(rows))
    write_text(MARKDOWN, render_markdown(rows))
    print(f"{describe_passed(rows)}: {HTML}, {MARKDOWN}")
    if note := unlisted_note():
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
