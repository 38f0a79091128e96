"""`dvc plots` draws every plot that dvc.yaml declares, and the pictures of each model's report."""

import json
import shutil
from pathlib import Path

import pytest

from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from onnx_release.report.pages import PAGE_ONLY, PICTURES
from tests.clone import list_models
from tests.declared_stages import declared_stages
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git
from tools.new_model import pipeline_text

# The name of one is the beginning of the other's.
MODELS = ("m", "m_v2")
# What stages have written, of models that are listed or not.
TABLES = sorted(ROOT.glob("metrics/*/plots/validate/*.csv"))
DRAWN = (*PICTURES, *PAGE_ONLY)


def header(table: Path) -> list[str]:
    return table.read_text(encoding="utf-8").splitlines()[0].split(",")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository of two models with the real dvc.yaml, these tables, and a picture in the place of each."""
    folder = tmp_path_factory.mktemp("plots")
    for name in ("dvc.yaml", "stages/dvc.yaml"):
        write_text(folder / name, (ROOT / name).read_text())
    write_text(folder / ".dvc/config", "[core]\n    analytics = false\n    check_update = false\n")
    list_models(folder, *MODELS)
    for model in MODELS:
        files = ModelFiles(model)
        write_text(folder / files.pipeline, pipeline_text(model))
        for table in TABLES:
            target = folder / files.plots / "validate" / table.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table, target)
        for name in DRAWN:
            write_text(folder / files.pictures / f"{name}.svg", "<svg/>\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def test_every_plot_of_a_stage_has_words_and_columns_that_are_there():
    assert TABLES
    plots = [entry for stage in declared_stages("m").values() for entry in stage.get("plots", [])]
    assert [*map(list, plots)] == [["metrics/m/plots/validate/${item.variant}.csv"]]
    for plot in plots[0].values():
        assert all(plot[key].strip() for key in ("title", "x_label", "y_label"))
        assert all({plot["x"], plot["y"]} <= {*header(table)} for table in TABLES if header(table) != ["left_out"])


def test_dvc_draws_the_error_of_each_sample(project):
    """`dvc plots diff` fills the template with the rows of the working tree."""
    files = [path.relative_to(project).as_posix() for path in sorted(project.glob("metrics/*/plots/validate/*.csv"))]
    done = run_here(project, "dvc", "plots", "diff", "HEAD", "--json", "--targets", *files)
    assert done.returncode == 0, done.stderr
    drawn = {name: plots for name, plots in json.loads(done.stdout)["data"].items() if "content" in plots[0]}
    assert drawn.keys() == {file for file in files if header(project / file) != ["left_out"]}
    for plot in (plot for plots in drawn.values() for plot in plots):
        assert "<DVC_METRIC_" not in json.dumps(plot["content"])
        assert plot["content"]["data"]["values"]


def test_dvc_shows_the_pictures_of_each_model_s_report(project):
    done = run_here(project, "dvc", "plots", "show", "--json", "--out", "shown")
    assert done.returncode == 0, done.stderr
    images = [plot["url"] for plots in json.loads(done.stdout)["data"].values() for plot in plots if "url" in plot]
    assert {Path(image).name.removeprefix("workspace_") for image in images} == {
        f"artifacts_{model}_pictures_{name}.svg" for model in MODELS for name in DRAWN
    }
