"""What happens to a model that is taken off the list, as docs/team.md says it."""

import pytest

from tests.clone import list_models
from tests.in_process import run_here
from tests.small_project import ENVIRONMENT, make_small_project

# What the last two stages have made, which only a listed model has, and what the others have.
LAST = ["artifacts/texts/report/MANIFEST.json", "artifacts/texts/release/MANIFEST.json"]
MADE = [*LAST, "data/prepared/texts/weights.txt", "metrics/texts/prepare.json"]


def dvc(folder, *arguments):
    result = run_here(folder, "dvc", *arguments, env=ENVIRONMENT)
    return result.stdout + result.stderr


@pytest.fixture
def project(tmp_path):
    """Both models have run, and one of them has been taken off the list."""
    make_small_project(tmp_path, "cars", "texts")
    dvc(tmp_path, "repro")
    assert missing(tmp_path) == []
    list_models(tmp_path, "cars")
    return tmp_path


def missing(folder):
    return [path for path in MADE if not (folder / path).is_file()]


def test_a_run_leaves_what_it_has_and_a_checkout_deletes_its_report_and_release(project):
    locked = (project / "dvc.lock").read_text()
    dvc(project, "repro")
    assert missing(project) == []
    assert (project / "dvc.lock").read_text() == locked
    dvc(project, "checkout")
    assert missing(project) == LAST
    assert (project / "models/texts/spec.yaml").is_file()


def test_back_on_the_list_it_is_checked_out_and_does_not_run(project):
    dvc(project, "checkout")
    list_models(project, "cars", "texts")
    dvc(project, "checkout")
    assert missing(project) == []
    assert "@texts':\n" not in dvc(project, "repro")  # as in Running stage 'report@texts':


def test_collecting_garbage_takes_the_last_two_out_of_the_cache_so_that_they_run_again(project):
    dvc(project, "checkout")
    dvc(project, "gc", "--workspace", "--force")
    list_models(project, "cars", "texts")
    said = dvc(project, "repro")
    assert "Running stage 'report@texts'" in said  # and the release, which has the same bytes here, is then cached
    assert "Running stage 'pipelines/texts/" not in said
    assert missing(project) == []
