"""Two branches that both ran: what git leaves of each dvc.lock, metrics/ and params.yaml, and the way out of it.

The repository is a small one, which has the project's .gitattributes and merge driver: one stage of one model writes
what params.yaml says, in a file that DVC keeps and in metrics that git keeps, and counts its runs outside.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_release.core.addresses import LAST
from onnx_release.core.errors import DataError
from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from tests.clone import list_models, set_param
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git
from tools.page_parts.pipeline import pipeline_picture

MODEL = "digits_cnn"
FILES = ModelFiles(MODEL)
LOCK = FILES.lock.as_posix()
STAGE = """
import json, os, pathlib, sys
from ruamel.yaml import YAML
method = YAML(typ="safe").load(pathlib.Path("params.yaml"))["calibrate"]["method"]
runs = pathlib.Path(os.environ["RUNS"])
runs.write_text((runs.read_text() if runs.exists() else "") + method + " ")
for folder in ("artifacts", "metrics"):
    pathlib.Path(folder, sys.argv[1]).mkdir(parents=True, exist_ok=True)
pathlib.Path("artifacts", sys.argv[1], "made.txt").write_text(method)
pathlib.Path("metrics", sys.argv[1], "calibrate.json").write_text(json.dumps({"method": method}))
"""
PIPELINE = """
vars: [models.yaml]
stages:
"""
MODEL_PIPELINE = f"""
stages:
  calibrate:
    wdir: ../..
    cmd: python make.py {MODEL}
    deps: [make.py]
    params: [calibrate]
    outs: ["artifacts/{MODEL}/made.txt"]
    metrics:
    - metrics/{MODEL}/calibrate.json: {{cache: false}}
"""
# What `tools.repro` asks for.
PIPELINE += "".join(
    f"""
  {name}:
    matrix: {{model: "${{models}}"}}
    cmd: cp artifacts/${{item.model}}/made.txt artifacts/${{item.model}}/{name}.txt
    deps: ["artifacts/${{item.model}}/made.txt"]
    outs: ["artifacts/${{item.model}}/{name}.txt"]
"""
    for name in LAST
)


def tool_in(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What runs a tool in this repository; its stage counts its runs in the file `runs` beside it."""
    environment = {"RUNS": str(folder.parent / "runs"), "PYTHONPATH": str(ROOT)}
    return lambda *arguments: run_here(folder, *arguments, env=environment)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which two branches have run with another method each; the second one is checked out."""
    folder = tmp_path_factory.mktemp("pristine") / "clone"
    for name in (".gitattributes", "params.yaml", str(FILES.spec), str(FILES.overrides)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("/.dvc/cache\n/.dvc/tmp\n/artifacts/\n")
    (folder / "make.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(PIPELINE)
    write_text(folder / FILES.pipeline, MODEL_PIPELINE)
    list_models(folder, MODEL)
    git(folder, "init", "--quiet", "--initial-branch=main")
    driver = f"PYTHONPATH={ROOT} {sys.executable} -m tools.merge_lock %O %A %B %P"
    git(folder, "config", "merge.dvc-lock.driver", driver)
    for branch, method in (("main", "minmax"), ("one", "mse"), ("two", "entropy")):
        if branch != "main":
            git(folder, "checkout", "--quiet", "-b", branch, "main")
        set_param(folder, "calibrate.method", method)
        result = tool_in(folder)("tools.repro")
        assert result.returncode == 0, result.stdout + result.stderr
        commit(folder, branch)
    return folder


@pytest.fixture
def clone(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(pristine.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "clone"


@pytest.fixture
def tool(clone: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    return tool_in(clone)


def keep(folder: Path, method: str) -> None:
    """Edit params.yaml as the message says: one side stays."""
    lines = (folder / "params.yaml").read_text().splitlines(keepends=True)
    conflict = [number for number, line in enumerate(lines) if line.startswith(("<<<<<<<", ">>>>>>>"))]
    (side,) = [line for line in lines[conflict[0] : conflict[1]] if f"method: {method}" in line]
    lines[conflict[0] : conflict[1] + 1] = [side]
    (folder / "params.yaml").write_text("".join(lines))


def without_attributes(folder: Path) -> None:
    """As in a repository that has not had them when its branches were merged."""
    (folder / ".git/info/attributes").write_text("dvc.lock merge\nmetrics/** merge\n")


def test_one_message_names_every_file_in_conflict_and_its_commands_get_out_of_it(clone, tool):
    without_attributes(clone)
    git(clone, "merge", "one", check=False)
    for path in ("dvc.lock", LOCK, "metrics/digits_cnn/calibrate.json", "params.yaml"):
        assert "<<<<<<< HEAD" in (clone / path).read_text()
    for command in (["tools.repro"], ["tools.gate"], ["stages.settings", MODEL], ["tools.doctor", MODEL]):
        result = tool(*command)
        assert result.returncode == 1
        assert result.stderr.startswith(
            f"error: git could not merge {LOCK}, dvc.lock, metrics/digits_cnn/calibrate.json, params.yaml:\n"
            "  edit params.yaml: keep one side of each part, and delete <<<<<<<, =======, >>>>>>>\n"
            f"  git checkout HEAD -- {LOCK} dvc.lock metrics "
        ), result.stderr
    result = tool("tools.compare", "main")
    assert result.stderr.startswith(
        f"error: git could not merge {LOCK}, dvc.lock, metrics/digits_cnn/calibrate.json, params.yaml:\n"
    )
    keep(clone, "mse")
    git(clone, "checkout", "HEAD", "--", LOCK, "dvc.lock", "metrics")
    result = tool("tools.repro")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Stage 'pipelines/digits_cnn/dvc.yaml:calibrate' is cached" in result.stdout
    assert json.loads((clone / "metrics/digits_cnn/calibrate.json").read_text()) == {"method": "mse"}
    assert (clone / "artifacts/digits_cnn/made.txt").read_text() == "mse"
    commit(clone, "merged")
    assert (clone.parent / "runs").read_text() == "minmax mse entropy "  # nothing has run again


def test_the_generated_pages_are_not_made_of_what_is_in_conflict(clone, monkeypatch):
    without_attributes(clone)
    git(clone, "merge", "one", check=False)
    monkeypatch.chdir(clone)
    with pytest.raises(
        DataError, match=f"git could not merge {LOCK}, dvc.lock, metrics/digits_cnn/calibrate.json, params.yaml"
    ):
        pipeline_picture(lambda _: None)


def test_git_leaves_no_markers_in_what_a_run_makes(clone, tool):
    git(clone, "merge", "one", check=False)
    assert git(clone, "diff", "--name-only", "--diff-filter=U").split() == [
        "dvc.lock", "metrics/digits_cnn/calibrate.json", "params.yaml", LOCK,
    ]  # fmt: skip
    assert tool("tools.repro").stderr.startswith("error: git could not merge params.yaml:\n  edit params.yaml: ")
    keep(clone, "mse")
    result = tool("tools.repro")
    assert result.returncode == 0 and "Stage 'pipelines/digits_cnn/dvc.yaml:calibrate' is cached" in result.stdout
    assert json.loads((clone / "metrics/digits_cnn/calibrate.json").read_text()) == {"method": "mse"}


def test_markers_in_metrics_alone_do_not_keep_the_pipeline_from_running(clone, tool):
    (clone / "metrics/digits_cnn/calibrate.json").write_text("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> one\n")
    result = tool("tools.compare", "main")
    assert result.stderr.startswith(
        "error: git could not merge metrics/digits_cnn/calibrate.json:\n  git checkout HEAD -- metrics "
    )
    assert tool("tools.repro").returncode == 0
    assert json.loads((clone / "metrics/digits_cnn/calibrate.json").read_text()) == {"method": "entropy"}


def test_a_revision_that_was_committed_with_markers_is_named(clone, tool):
    without_attributes(clone)
    git(clone, "merge", "one", check=False)
    git(clone, "commit", "--all", "--quiet", "--message", "unfinished")
    keep(clone, "entropy")
    git(clone, "checkout", "HEAD~", "--", LOCK, "dvc.lock", "metrics")
    assert tool("tools.repro").returncode == 0
    result = tool("tools.compare", "two")
    assert result.returncode == 1
    assert f"was committed with git's conflict markers in metrics/digits_cnn/calibrate.json, {LOCK}: " in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "dvc.lock is empty: run `git restore dvc.lock`"),
        ("a: [", "dvc.lock is not valid YAML: "),
        ("[]", "dvc.lock is damaged: `git restore dvc.lock`"),
        ("schema: '2.0'\n", "dvc.lock is damaged: `git restore dvc.lock`"),
        ("schema: '2.0'\nstages:\n", "dvc.lock is damaged: `git restore dvc.lock`"),
        ("schema: '2.0'\nstages: {package@digits_cnn: {outs: [1]}}\n", "dvc.lock is damaged: `git restore dvc.lock`"),
    ],
)
def test_a_damaged_lock_is_one_message(clone, tool, content, message):
    (clone / "dvc.lock").write_text(content)
    result = tool("tools.repro")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}") and "Traceback" not in result.stderr


def test_a_damaged_lock_may_be_restored(clone, tool):
    (clone / "dvc.lock").write_text("")
    git(clone, "restore", "dvc.lock")
    check_nothing_runs(clone, tool)


def test_a_damaged_lock_may_be_removed(clone, tool):
    (clone / "dvc.lock").unlink()
    check_nothing_runs(clone, tool)


def check_nothing_runs(clone, tool):
    result = tool("tools.repro")
    assert result.returncode == 0 and "Running stage" not in result.stdout
    assert git(clone, "status", "--porcelain") == ""
