"""Write a page with everything that was measured, and a short form for pull requests."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import replacing_folder, write_text
from onnx_release.core.paths import ModelFiles
from onnx_release.report.charts import stand_alone
from onnx_release.report.pages import make_charts, make_pictures, render_html, render_markdown
from onnx_release.report.results import collect


def main(model: str) -> None:
    files = ModelFiles(model)
    results = collect(files)
    charts = make_charts(results)
    with replacing_folder(files.report) as partial:
        write_text(partial / "index.html", render_html(results, charts))
        write_text(partial / "report.md", render_markdown(results, charts))
        for name, chart in charts.items():
            write_text(partial / f"{name}.svg", stand_alone(chart))
    for name, picture in make_pictures(charts).items():
        write_text(files.pictures / f"{name}.svg", picture)


if __name__ == "__main__":
    run_stage(main)
