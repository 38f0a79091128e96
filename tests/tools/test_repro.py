"""`make repro` and a run of all models: where they cannot start, fail, are interrupted, or are two at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onnx_release.core.files import write_text
from tests.clone import list_models, outputs, path_with_python, with_other_python_first
from tests.digits_spec import DIGITS_SPEC
from tests.in_process import run_here
from tests.revisions import commit, git
from tests.small_project import ENVIRONMENT, add_small_model, make_small_project
from tools.repro import BUSY

OUTPUTS = {
    f"{folder}/{file}"
    for model in ("m", "m_v2")
    for folder, file in (
        (f"data/prepared/{model}", "weights.txt"),
        (f"metrics/{model}", "prepare.json"),
        (f"artifacts/{model}/report", "MANIFEST.json"),
        (f"artifacts/{model}/release", "MANIFEST.json"),
    )
} | {"artifacts/hardware.json"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_small_project(tmp_path_factory.mktemp("pristine"), "m", "m_v2")


@pytest.fixture(scope="module")
def done(pristine, tmp_path_factory):
    """The project after a run of all models."""
    folder = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("done"), dirs_exist_ok=True))
    assert repro(folder, "--all").returncode == 0
    return folder


@pytest.fixture
def fresh(pristine, tmp_path):
    """A project in which nothing has run."""
    return Path(shutil.copytree(pristine, tmp_path / "project"))


@pytest.fixture
def project(done, tmp_path):
    """A project of which everything is made."""
    return Path(shutil.copytree(done, tmp_path / "project"))


def repro(folder, *arguments):
    return run_here(folder, "tools.repro", *arguments, env=ENVIRONMENT)


def last_lines(printed, count):
    return printed.splitlines()[-count:]


@contextmanager
def waiting_run(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of its own process that has come to the stage which waits; it is killed if it does not end."""
    command = [sys.executable, "-m", "tools.repro", *arguments]
    environment = {**os.environ, "PATH": path_with_python(), **ENVIRONMENT}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert "waiting\n" in process.stdout
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("fix", ["git init", "dvc config --local core.no_scm true"])
def test_without_git_one_message_has_two_fixes_that_work(fresh, fix):
    write_text(fresh / ".dvc/config", "[core]\n    analytics = false\n    check_update = false\n")
    result = repro(fresh)
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no git repository here, and DVC needs one.")
    assert f"\n  {fix} " in result.stderr
    environment = {**os.environ, "PATH": path_with_python()}
    subprocess.run(fix.split(), cwd=fresh, env=environment, check=True, capture_output=True)
    result = repro(fresh)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (fresh / "artifacts/m/release").is_dir()


def test_a_root_that_cannot_be_written_to_is_named_before_dvc_starts(fresh):
    """A file where DVC has a folder, since root may write whatever the permissions say."""
    (fresh / ".dvc/tmp").write_text("in the way")
    result = repro(fresh)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: .dvc/tmp: File exists: move away the file or folder of that name")
    assert result.stderr.count("\n") == 1


def test_without_its_hidden_files_a_copy_is_told_what_it_lacks(fresh):
    shutil.rmtree(fresh / ".dvc")
    result = repro(fresh)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: there is no folder .dvc here: ")


def test_without_a_name_the_first_model_on_the_list_is_run_and_with_one_that_one(fresh):
    assert repro(fresh).returncode == 0
    made = {path for path in OUTPUTS if "m_v2" not in path}
    assert outputs(fresh).keys() == made
    list_models(fresh, "m_v2", "m")
    assert repro(fresh, "--model", "m").returncode == 0
    assert outputs(fresh).keys() == made
    assert repro(fresh).returncode == 0
    assert outputs(fresh).keys() == OUTPUTS


@pytest.mark.parametrize("arguments", [[], ["--all"], ["--model", "m"]])
def test_a_list_without_a_model_is_one_message(project, arguments):
    before = outputs(project)
    write_text(project / "models.yaml", "models: []\n")
    result = repro(project, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (
        1,
        "",
        "error: models.yaml lists no model: add a line `- NAME` for a folder below models/\n",
    )
    assert outputs(project) == before


def test_a_name_that_is_not_on_the_list_is_one_message_and_what_it_says_works(fresh):
    add_small_model(fresh, "m_v3")
    result = repro(fresh, "--model", "m_v3")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: models.yaml does not list m_v3, but m, m_v2: choose one of them, or add a line `- m_v3` there for a "
        "folder below models/\n"
    )
    with (fresh / "models.yaml").open("a") as file:
        file.write("- m_v3\n")
    assert repro(fresh, "--model", "m_v3").returncode == 0
    assert (fresh / "artifacts/m_v3/release").is_dir()


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_a_model_in_params_yaml_is_one_message_that_says_what_there_is_now(fresh, arguments):
    text = (fresh / "params.yaml").read_text()
    (fresh / "params.yaml").write_text(f"model: m_v2\n{text}")
    result = repro(fresh, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: params.yaml has the key model, and there is none now: models.yaml lists the models, and `make repro "
        "MODEL=NAME` runs one of them. Remove the key\n"
    )
    assert not outputs(fresh)


def test_stages_run_with_the_python_that_runs_it_whatever_is_on_the_path(fresh, tmp_path, monkeypatch):
    with_other_python_first(monkeypatch, tmp_path)
    result = run_here(fresh, "tools.repro", env={**ENVIRONMENT, "PATH": os.environ["PATH"]})
    assert result.returncode == 0, result.stdout + result.stderr
    assert (fresh / "artifacts/m/release").is_dir()


def test_one_model_and_all_of_them_are_not_asked_for_together(fresh):
    result = repro(fresh, "--all", "--model", "m")
    assert result.returncode == 2
    assert "not allowed with argument --all" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_a_model_that_was_removed_from_the_list_is_named_and_its_files_stay(project, arguments):
    before = outputs(project)
    list_models(project, "m_v2")
    result = repro(project, *arguments)
    assert result.returncode == 0
    assert result.stderr.startswith("note: not on the list in models.yaml, and so not kept up: m. Add a line for each")
    assert outputs(project) == before


def test_a_run_of_all_says_for_each_that_it_is_done(fresh):
    result = repro(fresh, "--all")
    assert result.returncode == 0, result.stdout + result.stderr
    assert last_lines(result.stdout, 3) == ["", "m: done", "m_v2: done"]
    assert outputs(fresh).keys() == OUTPUTS


def test_a_model_that_fails_keeps_no_other_from_finishing(fresh):
    write_text(fresh / "prepare@m", "fails")
    result = repro(fresh, "--all")
    assert result.returncode == 1
    assert last_lines(result.stdout, 3) == ["", "m: failed at pipelines/m/dvc.yaml:prepare", "m_v2: done"]
    assert outputs(fresh).keys() == {path for path in OUTPUTS if "/m/" not in path}


def test_the_outputs_of_all_that_failed_come_back(project):
    before = outputs(project)
    for model in ("m", "m_v2"):
        write_text(project / f"models/{model}/weights.txt", f"{model} 2")
    write_text(project / "prepare@m", "fails")
    write_text(project / "report@m_v2", "fails")
    write_text(project / "package@m_v2", "fails")
    result = repro(project, "--all")
    assert result.returncode == 1
    assert last_lines(result.stdout, 2) == [
        "m: failed at pipelines/m/dvc.yaml:prepare",
        "m_v2: failed at package@m_v2, report@m_v2",
    ]
    assert result.stderr.endswith("\nThe outputs of unfinished stages are as they were before this run.\n")
    after = outputs(project)
    assert {path for path in OUTPUTS if after[path] != before[path]} == {
        "data/prepared/m_v2/weights.txt",
        "metrics/m_v2/prepare.json",
    }


def test_a_stage_that_fails_without_a_change_is_named_too(project):
    """Its outputs are gone, and DVC's cache with them, so it has to run again, and another one has not."""
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "artifacts/m/report")
    write_text(project / "report@m", "fails")
    result = repro(project, "--all")
    assert result.returncode == 1
    assert last_lines(result.stdout, 2) == ["m: failed at report@m", "m_v2: done"]


def test_what_describes_the_machine_fails_for_all_models(project):
    before = outputs(project)
    write_text(project / "hardware", "fails")
    result = repro(project, "--all")
    assert result.returncode == 1
    failed = "failed at stages/dvc.yaml:hardware"
    assert last_lines(result.stdout, 2) == [f"m: {failed}", f"m_v2: {failed}"]
    assert outputs(project) == before


def test_a_spec_that_is_wrong_is_shown_at_the_end_and_keeps_no_other_model_from_finishing(fresh):
    assert "task: classification" in DIGITS_SPEC
    write_text(fresh / "models/m/spec.yaml", DIGITS_SPEC.replace("task: classification", "tusk: classification"))
    result = repro(fresh, "--all")
    assert result.returncode == 1
    assert last_lines(result.stdout, 4) == [
        "m_v2: done",
        "m: not run: models/m/spec.yaml has wrong values:",
        "  task: missing",
        "  tusk: no such key; did you mean task?",
    ]
    assert outputs(fresh).keys() == {path for path in OUTPUTS if "/m/" not in path}
    write_text(fresh / "models/m_v2/spec.yaml", "task: [")  # and where no model can run, none does
    result = repro(fresh, "--all")
    assert result.returncode == 1
    assert "m: not run: " in result.stdout and "m_v2: not run: models/m_v2/spec.yaml is not valid" in result.stdout
    assert "done" not in result.stdout


def test_what_dvc_cannot_read_is_no_stage_that_failed(project):
    write_text(project / "dvc.yaml", "stages: [")
    result = repro(project, "--all")
    assert result.returncode == 1
    assert last_lines(result.stdout, 2) == [f"{model}: not done: DVC says above why" for model in ("m", "m_v2")]


def test_ctrl_c_ends_all_processes_without_a_traceback_and_the_outputs_are_back(project):
    before = outputs(project)
    write_text(project / "prepare@m", "waits")
    write_text(project / "models/m/weights.txt", "m 2")
    with waiting_run(project, "--all") as process:
        assert not (project / "data/prepared/m").exists()  # DVC has removed it
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        printed = process.communicate()[0]
    assert process.returncode == 130
    assert "Traceback" not in printed and printed.endswith("before this run.\nstopped\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # none of its processes is left
    assert outputs(project) == before


def test_two_runs_in_one_clone_lose_nothing_and_the_second_is_told_what_to_do(done, tmp_path):
    """The second run may be of another model: both would write dvc.lock."""
    project = tmp_path / "project"
    shutil.copytree(done, project)
    before = outputs(project)
    git(project, "init", "--quiet")
    write_text(project / ".gitignore", "/.dvc/cache\n/.dvc/tmp\n/.dvc/config.local\n/data\n/artifacts\n")
    commit(project)
    write_text(project / "prepare@m", "waits")
    write_text(project / "models/m/weights.txt", "m 2")
    with waiting_run(project) as process:
        for arguments in ([], ["--model", "m_v2"], ["--all"]):
            result = repro(project, *arguments)
            assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {BUSY}\n")
        assert not (project / "data/prepared/m").exists()  # it still belongs to the first run
        git(tmp_path, "clone", "--quiet", project, "other")
        assert repro(tmp_path / "other", "--model", "m_v2").returncode == 0
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
    assert outputs(project) == before
    (project / "prepare@m").unlink()
    assert repro(project).returncode == 0  # the lock is free again
    assert (project / "data/prepared/m/weights.txt").read_text() == "m 2"
