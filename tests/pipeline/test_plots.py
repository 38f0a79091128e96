"""`dvc plots` draws every plot that dvc.yaml declares."""

import json

from ruamel.yaml import YAML

from tests.imports import ROOT
from tests.in_process import run_here

FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "metrics/plots/validate").glob("*.csv"))
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()


def test_every_plot_of_a_stage_is_of_columns_that_are_there():
    for (plots,) in (stage["plots"] for stage in STAGES if "plots" in stage):
        for path, plot in plots.items():
            for file in ROOT.glob(path.replace("${item.variant}", "*")):
                header = file.read_text(encoding="utf-8").splitlines()[0].split(",")
                assert header == ["left_out"] or {plot["x"], plot["y"]} <= {*header}


def test_dvc_draws_the_error_of_each_sample():
    """`dvc plots diff` fills the template with the rows of the working tree; the pictures need artifacts/report."""
    done = run_here(ROOT, "dvc", "plots", "diff", "HEAD", "--json", "--targets", *FILES)
    drawn = [plot for plots in json.loads(done.stdout)["data"].values() for plot in plots if "content" in plot]
    assert drawn
    for plot in drawn:
        assert "<DVC_METRIC_" not in json.dumps(plot["content"])
        assert plot["content"]["data"]["values"]
