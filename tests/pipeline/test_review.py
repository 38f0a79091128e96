"""`.ci/review` on a small repository: four models with stages that measure, and a branch that touches some of them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from onnx_release.choice.metrics import SummaryMetrics
from tests.clone import list_models, path_with_python, run
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.revisions import as_json, commit, git, release, whole, write
from tools.pull_request_comment import comment_body

# The name of one is the beginning of another's; those of the others say what happens to them in `reviewed`.
MODELS = (BROKEN, DIGITS, LARGE, MENDED) = ("broken", "digits", "digits_large", "mended")
YOUNG = "young"
AUTHOR = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# Each run takes another time to load, and is counted in a file that no clone has.
COUNT = """
import json, os, pathlib, sys
model = sys.argv[1]
folder = pathlib.Path("metrics") / model
runs = pathlib.Path(os.environ["RUNS"]) / f"{pathlib.Path(sys.argv[0]).stem}_{model}"
number = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(number))
"""
MEASURE = f"""{COUNT}
if pathlib.Path(f"models/{{model}}/broken").exists():
    sys.exit("it is broken")
figures = json.loads(pathlib.Path("figures.json").read_text())
figures["fp32"]["load_ms"] = number
(folder / "benchmark.json").write_text(json.dumps(figures))
"""
# The same for a stage that does not depend on the benchmark.
PROFILE = f"""{COUNT}
(folder / "profile.json").write_text(json.dumps({{"variant": "fp32", "calls": 10, "model_ms": number}}))
"""
REPORT = """
import pathlib, sys
report = pathlib.Path("artifacts") / sys.argv[1] / "report"
report.mkdir(parents=True)
(report / "report.md").write_text(f"# {sys.argv[1]}: passed\\n\\nIt is the report of {sys.argv[1]}.\\n")
"""


def stages(**found: dict[str, object]) -> dict[str, object]:
    """The stages of a dvc.yaml, each of which runs its script for one model."""
    return {"stages": found}


def stage(script: str, model: str, *deps: str, **others: object) -> dict[str, object]:
    return {"cmd": f"python {script} {model}", "deps": [script, *deps], **others}


def timed(script: str, model: str, name: str, *deps: str) -> dict[str, object]:
    """A stage of a model that writes the metrics of this name."""
    metrics = [{f"metrics/{model}/{name}.json": {"cache": False}}]
    return stage(script, model, f"models/{model}", *deps, wdir="../..", metrics=metrics)


def last(script: str, **outputs: object) -> dict[str, object]:
    """A stage of the root's dvc.yaml, for every model."""
    deps = (f"metrics/${{item.model}}/{name}.json" for name in ("benchmark", "profile"))
    return stage(script, "${item.model}", *deps, matrix={"model": "${models}"}, **outputs)


LAST = {
    "vars": ["models.yaml"],
    **stages(
        report=last("report_it.py", outs=["artifacts/${item.model}/report"]),
        package=last("package_it.py"),
    ),
}


def add_model(folder: Path, model: str) -> None:
    """Write a model's folder and its pipeline, and its metrics but for those that its stages write."""
    made = DIGITS_SPEC.replace("[fp16, int8_dynamic, int8_static]", "[int8_static]")
    files = release()
    summary = whole(SummaryMetrics, variant="fp32", size_mb=0.25)
    files |= {"metrics/digits_cnn/validate/export.json": files["metrics/digits_cnn/validate/fp32.json"]}
    files |= {"metrics/digits_cnn/summary.json": summary}
    own = {
        f"metrics/{model}/{path.removeprefix('metrics/digits_cnn/')}": files[path]
        for path in files
        if "metrics" in path
    }
    write(folder, {path: content for path, content in own.items() if not path.endswith("benchmark.json")})
    pipeline = stages(
        benchmark=timed("measure.py", model, "benchmark", "figures.json"),
        profile=timed("profile_it.py", model, "profile"),
    )
    write(
        folder,
        {
            f"models/{model}/spec.yaml": made.encode(),
            f"models/{model}/params.yaml": b"{}\n",
            f"pipelines/{model}/dvc.yaml": as_json(pipeline),
        },
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository in which all models have run, on main; a branch starts there."""
    folder = tmp_path_factory.mktemp("made") / "clone"
    for name in (".ci/review", "params.yaml", "requirements.txt", "constraints.txt", ".gitattributes"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for model in MODELS:
        add_model(folder, model)
    list_models(folder, *MODELS)
    write(
        folder,
        {
            "figures.json": release()["metrics/digits_cnn/benchmark.json"],
            "measure.py": MEASURE.encode(),
            "profile_it.py": PROFILE.encode(),
            "report_it.py": REPORT.encode(),
            "package_it.py": b"",
            "dvc.yaml": as_json(LAST),
            ".gitignore": b"/artifacts\n",
            ".dvc/config": b"[core]\n    analytics = false\n    check_update = false\n",
            ".dvc/.gitignore": b"/cache\n/tmp\n/config.local\n",
        },
    )
    (folder.parent / "runs").mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    result = run(folder, "dvc", "repro", env=environment(folder))  # which the run cache will bring back
    assert result.returncode == 0, result.stderr
    commit(folder, "base")
    git(folder, "checkout", "--quiet", "-b", "branch")
    return folder.parent


@pytest.fixture
def clone(made: Path, tmp_path: Path) -> Path:
    """A copy of the repository, with the counts of its runs beside it."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "clone"


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        **AUTHOR,
        "RUNS": str(folder.parent / "runs"),
        "PATH": path_with_python(),
        "PYTHONPATH": str(ROOT),
    }


def review(folder: Path, base: str = "main") -> subprocess.CompletedProcess[str]:
    """Review the branch that is checked out; the results are in `out` beside the clone."""
    command = [str(folder / ".ci/review"), base, str(folder.parent / "out")]
    return subprocess.run(
        command, cwd=folder.parent, env=environment(folder), capture_output=True, text=True, check=False
    )


def runs(folder: Path) -> dict[str, int]:
    """How often each stage of each model has run, without those that have run only for the base."""
    counts = {path.name: int(path.read_text()) for path in (folder.parent / "runs").iterdir()}
    return {name: count for name, count in counts.items() if count > 1}


def out(folder: Path, name: str) -> str:
    return (folder.parent / "out" / name).read_text()


def lines(folder: Path) -> list[str]:
    """What the comment begins with, a line for each model."""
    result = comment_body(folder.parent / "out", "failure").splitlines()
    assert result[:2] == ["| model | release | verdict |", "| --- | --- | --- |"]
    return result[2 : result.index("")]


def change(folder: Path, model: str, name: str = "data.py") -> None:
    write(folder, {f"models/{model}/{name}": b"# another\n"})
    commit(folder, f"change {model}")


def test_a_change_that_touches_no_model_runs_none_and_says_so(clone):
    result = review(clone, "mane")
    assert result.returncode == 1
    assert "error: HEAD and mane have no commit in common" in result.stderr
    write(clone, {"README.md": b"one\n"})
    commit(clone)
    result = review(clone)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Running stage" not in result.stdout and runs(clone) == {}
    assert lines(clone) == [f"| {model} | fp32 | passed, nothing moved |" for model in MODELS]
    said = "This change touches no model, so none was run: the committed metrics are compared."
    assert said in comment_body(clone.parent / "out", "success")
    assert not (clone.parent / "out/report").exists()


@pytest.fixture(scope="module")
def reviewed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after the review of a branch that touches all models but LARGE: a run takes long, and this shares one.

    DIGITS runs on both sides and fails its validation on the branch, YOUNG is new, BROKEN fails on the branch,
    and MENDED fails on the base.
    """
    folder = tmp_path_factory.mktemp("reviewed")
    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
    clone = folder / "clone"
    git(clone, "checkout", "--quiet", "main")
    change(clone, MENDED, "broken")
    git(clone, "checkout", "--quiet", "-B", "branch")
    git(clone, "rm", "--quiet", f"models/{MENDED}/broken")
    path = clone / f"metrics/{DIGITS}/validate/fp32.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "passed": False, "failure": "logits is off by 3"}))
    add_model(clone, YOUNG)
    list_models(clone, YOUNG, MENDED, BROKEN, DIGITS, LARGE)  # the failed runs come before the one that is kept
    change(clone, DIGITS)
    change(clone, BROKEN, "broken")
    change(clone, MENDED)
    (folder / "out/report/removed").mkdir(parents=True)
    result = review(clone)
    assert result.returncode == 1, result.stdout + result.stderr
    return clone


def test_each_touched_model_has_its_line_and_the_others_stay(reviewed):
    assert lines(reviewed) == [
        "| broken | fp32 | **FAILED**, nothing moved |",
        "| digits | fp32 | **FAILED** (fp32), **1 worse**, 1 changed |",
        "| digits_large | fp32 | passed, nothing moved |",
        "| mended | fp32 | passed, nothing moved |",
        "| young | fp32 | new, passed |",
    ]
    assert "touches these models, which were run: young, mended, broken, digits.\n" in out(reviewed, "runs.md")


def test_a_touched_model_is_timed_here_on_both_sides(reviewed):
    # The branch is the second run; the base came out of the cache, and then all of its timings were measured again.
    of_digits = {name: count for name, count in runs(reviewed).items() if DIGITS in name}
    assert of_digits == {"measure_digits": 3, "profile_it_digits": 3}
    base = git(reviewed, "rev-parse", "main")
    assert f"Compared with base-{base[:7]}-measured-here" in out(reviewed, "comparison.md")
    assert git(reviewed, "rev-parse", f"{experiment(reviewed)}~1") == base
    assert loads_of(reviewed, experiment(reviewed)) == {DIGITS: 3, LARGE: 1, BROKEN: 1, MENDED: 1}


def test_a_failed_gate_loses_nothing(reviewed):
    gates = out(reviewed, "gate.txt")
    assert "\ndigits:\nexport: passed\nfp32: FAILED: logits is off by 3\n" in gates
    assert "\ndigits_large:\nexport: passed\nfp32: passed\n" in gates
    reports = (reviewed.parent / "out/report").glob("*/report.md")
    assert {path.parent.name for path in reports} == {DIGITS, MENDED, YOUNG}


def test_a_model_that_fails_here_or_on_the_base_keeps_no_other_from_its_review(reviewed):
    assert "mended failed on the base: its committed metrics are compared.\n" in out(reviewed, "runs.md")
    assert out(reviewed, "runs.md").count("failed on the base") == 1
    assert out(reviewed, "gate.txt").endswith("broken:\npipeline: FAILED: the log of this run says at which stage\n")
    assert {path.name for path in (reviewed.parent / "out/report").iterdir()} == {DIGITS, MENDED, YOUNG}


def experiment(folder: Path) -> str:
    """The commit of the only experiment."""
    [found] = git(folder, "for-each-ref", "--format=%(objectname)", "refs/exps").split()
    return found


def loads_of(folder: Path, revision: str) -> dict[str, int]:
    """What each run of the benchmark has counted, by model."""
    found = {model: json.loads(git(folder, "show", f"{revision}:metrics/{model}/benchmark.json")) for model in MODELS}
    return {model: benchmark["fp32"]["load_ms"] for model, benchmark in found.items()}


def test_a_base_with_other_packages_is_not_run_and_says_so(clone):
    with (clone / "requirements.txt").open("a") as file:
        file.write("# another\n")
    change(clone, "digits")
    result = review(clone)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The base needs other packages and was not run" in out(clone, "runs.md")
    assert runs(clone) == {"measure_digits": 2, "profile_it_digits": 2}
    assert lines(clone) == [f"| {model} | fp32 | passed, nothing moved |" for model in MODELS]
    assert f"Compared with main ({git(clone, 'rev-parse', '--short=7', 'main')})" in out(clone, "comparison.md")
    assert not git(clone, "for-each-ref", "refs/exps")


def test_a_base_of_before_models_were_side_by_side_is_said_to_have_none(clone):
    summary = (clone / "metrics/digits/summary.json").read_bytes()
    git(clone, "rm", "--quiet", "-r", "metrics", "models.yaml", "dvc.lock")
    write(clone, {"metrics/summary.json": summary})
    commit(clone, "before")
    git(clone, "rm", "--quiet", "metrics/summary.json")
    git(clone, "checkout", "main", "--", "metrics/digits")
    list_models(clone, "digits")
    commit(clone, "side by side")
    result = review(clone, "HEAD~1")
    assert result.returncode == 1, result.stdout + result.stderr
    assert out(clone, "comparison.md").startswith("error: ") and "has no models" in out(clone, "comparison.md")
    assert "The base is of before models were side by side, and was not run." in out(clone, "runs.md")
    assert "Traceback" not in result.stdout + result.stderr
