"""`dvc plots` draws every plot that dvc.yaml declares."""

import json

from ruamel.yaml import YAML

from tests.imports import ROOT
from tests.in_process import run_here

FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "metrics/plots/validate").glob("*.csv"))
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()


def header(file):
    return (ROOT / file).read_text(encoding="utf-8").splitlines()[0].split(",")


def test_every_plot_of_a_stage_has_words_and_columns_that_are_there():
    assert FILES
    plots = [entry for stage in STAGES for entry in stage.get("plots", [])]
    assert [*map(list, plots)] == [["metrics/plots/validate/${item.variant}.csv"]]
    for plot in plots[0].values():
        assert all(plot[key].strip() for key in ("title", "x_label", "y_label"))
        assert all({plot["x"], plot["y"]} <= {*header(file)} for file in FILES if header(file) != ["left_out"])


def test_dvc_draws_the_error_of_each_sample():
    """`dvc plots diff` fills the template with the rows of the working tree; the pictures need artifacts/report."""
    done = run_here(ROOT, "dvc", "plots", "diff", "HEAD", "--json", "--targets", *FILES)
    assert done.returncode == 0, done.stderr
    drawn = {name: plots for name, plots in json.loads(done.stdout)["data"].items() if "content" in plots[0]}
    assert {*drawn} == {file for file in FILES if header(file) != ["left_out"]}
    for plot in (plot for plots in drawn.values() for plot in plots):
        assert "<DVC_METRIC_" not in json.dumps(plot["content"])
        assert plot["content"]["data"]["values"]
