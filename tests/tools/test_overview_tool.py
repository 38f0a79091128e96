"""`python -m tools.overview` writes both pages, and one model or none with results is no error."""

import pytest

from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Task
from tests.in_process import run_here
from tests.listed_models import make_models

TASKS: dict[str, Task] = {"cars": "classification", "texts": "embedding"}


@pytest.fixture
def project(tmp_path):
    make_models(tmp_path, TASKS, "cars")
    return tmp_path


def test_it_writes_a_page_and_its_short_form_of_every_model_on_the_list(project):
    result = run_here(project, "tools.overview")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "1 of 2 models passed, 1 without results: artifacts/overview.html, artifacts/overview.md\n"
    )
    page, short = ((project / f"artifacts/overview.{kind}").read_text() for kind in ("html", "md"))
    for text in (page, short):
        assert "5.5 [5, 6]" in text
        assert "make repro MODEL=texts" in text


def test_the_same_metrics_give_the_same_bytes(project):
    paths = [project / f"artifacts/overview.{kind}" for kind in ("html", "md")]
    run_here(project, "tools.overview")
    before = [path.read_bytes() for path in paths]
    run_here(project, "tools.overview")
    assert [path.read_bytes() for path in paths] == before


def test_a_model_that_is_called_like_the_page_keeps_its_artifacts(tmp_path):
    make_models(tmp_path, {"overview": "tensor"}, "overview")
    (tmp_path / ModelFiles("overview").report).mkdir(parents=True)
    assert run_here(tmp_path, "tools.overview").returncode == 0
    assert (tmp_path / "artifacts/overview/report").is_dir()
    assert "overview/report/index.html" in (tmp_path / "artifacts/overview.md").read_text()


def test_a_folder_that_is_not_listed_is_named(project):
    (project / "models.yaml").write_text("models:\n- cars\n")
    result = run_here(project, "tools.overview")
    assert "not on the list" in result.stderr and "texts" in result.stderr
    assert "texts" not in (project / "artifacts/overview.html").read_text()


def test_a_wrong_list_is_one_message(project):
    (project / "models.yaml").write_text("models: []\n")
    result = run_here(project, "tools.overview")
    assert result.returncode == 1
    assert result.stderr.startswith("error: models.yaml")
