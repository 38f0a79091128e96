"""Every CSV below metrics/plots is drawn by `dvc plots`, with a title, named axes and columns that are there."""

import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
from dvc_render.vega_templates import TEMPLATES  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from tests.imports import ROOT

DECLARED = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "metrics/plots").rglob("*.csv"))
OWN = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc/plots").iterdir()}
# The plot of a stage is that of one file, or of one file of each variant.
OF_STAGES = {
    re.sub(r"\$\{[^}]*\}", "*", path): plot
    for stage in DECLARED["stages"].values()
    for entry in stage.get("do", stage).get("plots", [])
    for path, plot in entry.items()
}
OF_SEVERAL = {name: plot for entry in DECLARED["plots"] for name, plot in entry.items()}


def check_words(plot):
    for key in ("title", "x_label", "y_label"):
        assert plot[key].strip()
    assert plot["template"] in OWN or plot["template"] in {template.DEFAULT_NAME for template in TEMPLATES}


def columns(file):
    return (ROOT / file).read_text().splitlines()[0].split(",")


@pytest.mark.parametrize("file", FILES)
def test_every_table_has_its_plot(file):
    (plot,) = [plot for path, plot in OF_STAGES.items() if fnmatchcase(file, path)]
    check_words(plot)
    if columns(file) != ["left_out"]:
        assert {plot["x"], plot["y"]} <= set(columns(file))


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_every_other_plot_is_of_columns_that_are_there(name):
    plot = OF_SEVERAL[name]
    check_words(plot)
    for file, column in [*plot.get("x", {}).items(), *plot["y"].items()]:
        assert file in FILES
        assert column in columns(file) or columns(file) == ["left_out"]


def test_every_template_is_used_and_says_why_it_is_there():
    used = {plot["template"] for plot in [*OF_STAGES.values(), *OF_SEVERAL.values()]}
    assert set(OWN) <= used
    assert all(template["description"] for template in OWN.values())


def test_dvc_draws_them_all():
    """`dvc plots diff` fills every template with the rows of the working tree, and finds no fault."""
    command = [sys.executable, "-m", "dvc", "plots", "diff", "HEAD", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    drawn = {
        name: plot
        for name, plots in json.loads(done.stdout)["data"].items()
        for plot in plots
        if "workspace" in plot["revisions"]
    }
    titles = {plot["content"]["title"]["text"] for plot in drawn.values()}
    whole = [file for file in FILES if columns(file) != ["left_out"]]
    assert len(titles) == len(whole) + len(OF_SEVERAL)
    for plot in drawn.values():
        assert "<DVC_METRIC_" not in json.dumps(plot["content"])
        assert plot["content"]["data"]["values"]
