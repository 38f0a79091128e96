"""`.ci/review` on a small repository: one stage that measures, the committed metrics, and a branch with a fault."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from tests.clone import path_with_python, run
from tests.imports import ROOT
from tests.revisions import commit, git

AUTHOR = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
# Each run takes another time to load, and is counted in a file that no clone has.
MEASURE = """
import json, os, pathlib
runs = pathlib.Path(os.environ["RUNS"])
number = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(number))
figures = json.loads(pathlib.Path("figures.json").read_text())
figures["fp32"]["load_ms"] = number
pathlib.Path("metrics/benchmark.json").write_text(json.dumps(figures))
report = pathlib.Path("artifacts/report")
report.mkdir(parents=True)
(report / "report.md").write_text(f"run {number}")
"""
# The same for a stage that does not depend on the benchmark.
PROFILE = """
import json, os, pathlib
runs = pathlib.Path(os.environ["RUNS"] + "_of_profile")
number = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(number))
pathlib.Path("metrics/profile.json").write_text(json.dumps({"variant": "fp32", "calls": 10, "model_ms": number}))
"""


def small_repository(folder: Path) -> None:
    for name in (".ci/review", "params.yaml", "models/mobilenet_v2/spec.yaml", "requirements.txt", "constraints.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "metrics", folder / "metrics")
    shutil.copy(ROOT / "metrics/benchmark.json", folder / "figures.json")
    (folder / "metrics/optimize.json").unlink()
    (folder / "measure.py").write_text(MEASURE)
    (folder / "profile_it.py").write_text(PROFILE)
    benchmark = {
        "cmd": "python measure.py",
        "deps": ["measure.py", "figures.json"],
        "outs": ["artifacts/report"],
        "metrics": [{"metrics/benchmark.json": {"cache": False}}],
    }
    profile = {
        "cmd": "python profile_it.py",
        "deps": ["profile_it.py"],
        "metrics": [{"metrics/profile.json": {"cache": False}}],
    }
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"benchmark": benchmark, "profile": profile}}, file)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".dvc/.gitignore").write_text("/cache\n/tmp\n/config.local\n")


def review(folder: Path, base: str, out: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(folder / ".ci/review"), base, str(out)]
    return subprocess.run(
        command, cwd=out.parent, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_base_and_branch_are_timed_here_and_a_failed_gate_loses_nothing(tmp_path):
    folder, out = tmp_path / "clone", tmp_path / "review"
    small_repository(folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    environment = {
        **AUTHOR,
        "RUNS": str(tmp_path / "runs"),
        "PATH": path_with_python(),
        "PYTHONPATH": str(ROOT),
    }
    assert run(folder, "dvc", "repro", env=environment).returncode == 0  # which the run cache will bring back
    commit(folder, "base")
    git(folder, "checkout", "--quiet", "-b", "branch")
    (folder / "measure.py").write_text(MEASURE + "# another program\n")
    path = folder / "metrics/validate/fp32.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "passed": False, "failure": "logits is off by 3"}))
    commit(folder, "a fault")
    result = review(folder, "mane", out, environment)
    assert result.returncode == 1
    assert "error: HEAD and mane have no commit in common" in result.stderr
    result = review(folder, "main", out, environment)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "fp32: FAILED: logits is off by 3" in (out / "gate.txt").read_text()
    # The branch is the second run; the base came out of the cache, and was then measured again.
    assert (tmp_path / "runs").read_text() == "3"
    # Both of its timings came out of the cache, and neither is left as it was.
    assert (tmp_path / "runs_of_profile").read_text() == "3"
    assert (out / "report/report.md").read_text() == "run 2"
    base = git(folder, "rev-parse", "--short=7", "main")
    comparison = (out / "comparison.md").read_text()
    assert f"base-{base}-measured-here" in comparison
    [experiment] = git(folder, "for-each-ref", "--format=%(objectname)", "refs/exps").split()
    assert json.loads(git(folder, "show", f"{experiment}:metrics/benchmark.json"))["fp32"]["load_ms"] == 3
