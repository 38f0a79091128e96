"""Put everything that was measured on one page, with its short form for a pull request."""

import pandas as pd

from onnx_release.core.command import run_stage
from onnx_release.core.files import replacing, replacing_folder, write_text
from onnx_release.core.params import load_params
from onnx_release.core.paths import PLOTS, REPORT
from onnx_release.report.charts import stand_alone
from onnx_release.report.pages import PICTURES, make_charts, render_html, render_markdown
from onnx_release.report.results import collect
from onnx_release.report.tradeoff import tradeoff_rows


def main() -> None:
    results = collect(load_params())
    charts = make_charts(results)
    with replacing_folder(REPORT) as partial:
        write_text(partial / "index.html", render_html(results, charts))
        write_text(partial / "report.md", render_markdown(results, charts))
        for name in PICTURES.keys() & charts.keys():
            write_text(partial / f"{name}.svg", stand_alone(charts[name]))
    with replacing(PLOTS / "tradeoff.csv") as partial:
        rows = tradeoff_rows(results.candidates, results.latencies)
        pd.DataFrame(rows).to_csv(partial, index=False, lineterminator="\n")


if __name__ == "__main__":
    run_stage(main)
