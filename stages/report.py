"""Put everything that was measured on one page, and the verdict into metrics/summary.json."""

import pandas as pd

from onnx_release.command import run_stage
from onnx_release.files import replacing, replacing_folder, write_json, write_text
from onnx_release.params import load_params
from onnx_release.paths import METRICS, PLOTS, REPORT
from onnx_release.report import collect, render_html, render_markdown, tradeoff_rows


def main() -> None:
    results = collect(load_params())
    with replacing_folder(REPORT) as partial:
        write_text(partial / "index.html", render_html(results))
        write_text(partial / "report.md", render_markdown(results))
    with replacing(PLOTS / "tradeoff.csv") as partial:
        pd.DataFrame(tradeoff_rows(results.rows)).to_csv(partial, index=False, lineterminator="\n")
    write_json(METRICS / "summary.json", results.summary)


if __name__ == "__main__":
    run_stage(main)
