"""Which models a branch touches: by what `dvc status` says, and in a small repository with two models."""

import pytest
from ruamel.yaml import YAML

from onnx_release.core.addresses import address
from onnx_release.core.paths import ModelFiles
from tests.clone import list_models, path_with_python, run
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git, write
from tools.touched_models import touched_models

MODELS = ["digits", "digits_large", "minilm"]
IN_BASE = {"stages", "stages/fp16.py", "models/minilm", "metrics/minilm/export.json"}


def touched(**stages):
    """The models that these reports touch; a stage is called STAGE__MODEL, or STAGE__VARIANT__MODEL."""
    names = {name: name.replace("__", "@", name.count("__") - 1).partition("__") for name in stages}
    status = {address(stage, model): stages[name] for name, (stage, _, model) in names.items()}
    return touched_models(status, MODELS, IN_BASE)


def deps(**states):
    return [{"changed deps": states}]


def test_nothing_touches_no_model():
    assert touched() == []
    assert touched_models({"stages/dvc.yaml:hardware": ["always changed"]}, MODELS, IN_BASE) == []


@pytest.mark.parametrize(
    "report",
    [
        {"changed deps": {"onnx_release/core": "modified"}},
        {"changed deps": {"a": "deleted", "params.yaml": {"export.opset": "modified"}}},
        {"changed deps": {"models/minilm/spec.yaml": "new"}},
        {"changed deps": {"params.yaml": {"export.opset": "deleted"}}},
        {"changed outs": {"metrics/minilm/export.json": "modified"}},
        "changed command",
    ],
)
def test_what_has_changed_touches_the_model_of_the_stage(report):
    assert touched(export__minilm=[report]) == ["minilm"]
    assert touched(export__minilm=["always changed", report]) == ["minilm"]


@pytest.mark.parametrize("path", ["data/raw/minilm", "artifacts/minilm/params.json", "metrics/minilm/slim.json"])
@pytest.mark.parametrize("kind", ["changed deps", "changed outs"])
def test_an_output_that_is_missing_touches_nothing(path, kind):
    assert touched(slim__minilm=[{kind: {path: "deleted"}}]) == []


@pytest.mark.parametrize("path", ["stages/fp16.py", "models/minilm", "metrics/minilm/export.json"])
def test_what_the_base_has_in_git_and_the_branch_does_not_touches_the_model(path):
    assert touched(fp16__minilm=deps(**{path: "deleted"})) == ["minilm"]


def test_a_model_is_not_taken_for_one_whose_name_begins_with_its_own():
    changed = deps(a="modified")
    assert touched(export__digits=changed) == ["digits"]
    assert touched(export__digits_large=changed) == ["digits_large"]
    assert touched(validate__fp32__digits=changed) == ["digits"]
    assert touched(validate__int8_static__digits_large=changed) == ["digits_large"]


def test_models_come_in_the_order_of_the_list_and_others_not_at_all():
    changed = deps(a="modified")
    assert touched(a__minilm=changed, b__removed=changed, package__none=changed, d__digits=changed) == [
        "digits",
        "minilm",
    ]


def test_what_describes_the_machine_touches_every_model():
    status = {"stages/dvc.yaml:hardware": [*deps(**{"stages/hardware.py": "modified"}), "always changed"]}
    assert touched_models(status, MODELS, IN_BASE) == MODELS


SPEC = (ROOT / "models/digits_cnn/spec.yaml").read_bytes()
# A stage for each model, another that depends on it, and one that describes the machine.
PIPELINE = {
    "vars": ["models.yaml"],
    "stages": {
        "report": {
            "matrix": {"model": "${models}"},
            "cmd": "python -c 1",
            "deps": ["artifacts/${item.model}/train"],
        },
    },
}
MACHINE = {
    "stages": {
        "hardware": {
            "wdir": "..",
            "cmd": "python machine.py",
            "always_changed": True,
            "deps": ["machine.py"],
            "outs": ["artifacts/machine.json"],
        }
    }
}
MAKE = b"""
import pathlib, sys
for path in (f"artifacts/{sys.argv[1]}/train", f"metrics/{sys.argv[1]}/train.json"):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text("{}")
"""


def model_pipeline(model):
    stage = {
        "wdir": "../..",
        "cmd": f"python make.py {model}",
        "deps": ["artifacts/machine.json", "make.py", f"models/{model}"],
        "params": ["rate", {f"models/{model}/params.yaml": None}],
        "outs": [f"artifacts/{model}/train"],
        "metrics": [{f"metrics/{model}/train.json": {"cache": False}}],
    }
    return {"stages": {"train": stage}}


def write_pipelines(folder, *models):
    """The stages of these models."""
    for model in models:
        path = folder / ModelFiles(model).pipeline
        path.parent.mkdir(parents=True)
        YAML().dump(model_pipeline(model), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository whose two models have run, on main; a branch starts there."""
    folder = tmp_path_factory.mktemp("made") / "clone"
    write(
        folder,
        {
            "make.py": MAKE,
            "machine.py": b"import pathlib\npathlib.Path('artifacts/machine.json').write_text('{}')\n",
            "params.yaml": b"rate: 1\n",
            ".gitignore": b"/artifacts\n/.dvc/cache\n/.dvc/tmp\n",
            ".dvc/config": b"[core]\n    analytics = false\n",
            "artifacts/.keep": b"",
            "stages/dvc.yaml": b"",
            **{
                f"models/{name}/{file}": SPEC
                for name in ("digits", "digits_large")
                for file in ("spec.yaml", "data.py")
            },
            **{f"models/{name}/params.yaml": b"own: 1\n" for name in ("digits", "digits_large")},
        },
    )
    list_models(folder, "digits", "digits_large")
    write_pipelines(folder, "digits", "digits_large")
    for path, content in (("dvc.yaml", PIPELINE), ("stages/dvc.yaml", MACHINE)):
        with (folder / path).open("w") as file:
            YAML().dump(content, file)
    git(folder, "init", "-q", "-b", "main")
    result = run(folder, "dvc", "repro", "--all-pipelines", env={"PATH": path_with_python()})
    assert result.returncode == 0, result.stderr
    commit(folder)
    git(folder, "switch", "-q", "-c", "branch")
    return folder


@pytest.fixture
def clone(made):
    """The repository, which is as before after the test."""
    yield made
    git(made, "switch", "-q", "--force", "branch")
    git(made, "reset", "-q", "--hard", "main")
    git(made, "clean", "-q", "-f", "-d")


def printed(clone, base="main"):
    result = run_here(clone, "tools.touched_models", base)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def test_a_branch_that_changes_what_no_stage_reads_touches_none_and_nothing_is_left_behind(clone):
    write(clone, {"README.md": b"one\n", "metrics/digits/train.json": b"{}"})
    before = git(clone, "status", "--porcelain", "--ignored")
    assert printed(clone) == []
    assert git(clone, "status", "--porcelain", "--ignored") == before


@pytest.mark.parametrize(
    ("path", "content", "expected", "committed"),
    [
        ("models/digits_large/data.py", b"# another\n", ["digits_large"], True),
        ("models/digits/params.yaml", b"own: 2\n", ["digits"], False),
        ("metrics/digits/train.json", b'{"a": 1}', ["digits"], True),
        ("params.yaml", b"rate: 2\n", ["digits", "digits_large"], False),
        ("machine.py", b"# another\n", ["digits", "digits_large"], True),
    ],
)
def test_a_change_touches_the_models_that_it_is_about(clone, path, content, expected, committed):
    write(clone, {path: content})
    if committed:
        commit(clone)
    assert printed(clone) == expected


def test_a_model_that_has_been_run_on_the_branch_and_committed_is_touched(clone):
    """Its dvc.lock is as it should be, and only the base's says that something has changed."""
    write(clone, {"models/digits_large/data.py": b"# another\n"})
    assert run(clone, "dvc", "repro", address("train", "digits_large")).returncode == 0
    commit(clone)
    assert "data.py" not in run(clone, "dvc", "status", address("train", "digits_large")).stdout
    assert printed(clone) == ["digits_large"]


def test_a_new_model_is_touched_and_no_other(clone):
    write(clone, {f"models/young/{name}": SPEC for name in ("spec.yaml", "data.py")})
    write(clone, {"models/young/params.yaml": b"own: 1\n"})
    write_pipelines(clone, "young")
    list_models(clone, "digits", "young", "digits_large")
    assert printed(clone) == ["young"]


def test_a_removed_model_touches_none(clone):
    list_models(clone, "digits")
    git(clone, "rm", "-q", "-r", *(f"{folder}/digits_large" for folder in ("models", "metrics", "pipelines")))
    assert printed(clone) == []


def test_a_script_that_the_branch_removes_touches_the_models(clone):
    git(clone, "rm", "-q", "make.py")
    assert printed(clone) == ["digits", "digits_large"]


def test_what_the_base_s_branch_has_changed_since_is_no_change_of_this_one(clone):
    git(clone, "switch", "-q", "main")
    write(clone, {"models/digits/data.py": b"# another\n"})
    commit(clone, "later")
    git(clone, "switch", "-q", "branch")
    try:
        assert printed(clone) == []
    finally:
        git(clone, "branch", "-q", "--force", "main", "branch")


def test_a_base_without_a_lock_touches_every_model(clone):
    git(clone, "rm", "-q", "*dvc.lock")
    commit(clone)
    assert printed(clone, "HEAD") == ["digits", "digits_large"]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("dvc.yaml", b"stages: [\n", "`dvc status` fails with the dvc.lock of "),
        ("models.yaml", b"models: []\n", "models.yaml"),
    ],
)
def test_what_cannot_be_read_is_one_message(clone, path, content, message):
    write(clone, {path: content})
    result = run_here(clone, "tools.touched_models", "main")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and message in result.stderr and "Traceback" not in result.stderr
