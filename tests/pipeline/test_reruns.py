"""Every parameter, every key of a spec and every file is changed in turn, and DVC says which stages that reruns.

A stage reruns by itself where one of its deps or params changed. What reads its outputs reruns only if their bytes
changed too, of which tests/pipeline/test_end_to_end.py has examples. What to expect is not read from dvc.yaml: for
modules it is the rooms of what the scripts import, and all else stands here, as the scripts read it.
"""

import importlib
import io
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_lockfile
from ruamel.yaml import YAML

from onnx_release.core.imports import OWN_PACKAGES
from tests.clone import edited, make_clone
from tests.imports import ROOT, imported_files, room, stage_files

SCRIPTS = {path.stem for path in (ROOT / "stages").glob("[!_]*.py")}
WITHOUT_MODEL = {"hardware", "slim"}

# The scripts that read a parameter, by the longest beginning of its name.
READ_PARAM: dict[str, set[str]] = {
    "model": SCRIPTS - WITHOUT_MODEL,
    "prepare": {"prepare"},
    "reference": {"reference"},
    "export": {"export", "report"},
    "slim": {"slim"},
    "fp16": {"fp16"},
    "quantize_dynamic": {"quantize_dynamic"},
    "calibrate": {"calibrate"},
    "quantize_static.target": {"hardware"},  # the others read what it made of `auto`
    "quantize_static.minutes": {"quantize_static"},
    "validate": {"validate", "report"},
    "validate.confidence": {"validate", "report", "package"},
    "runtime": {"hardware", "validate", "benchmark", "optimize", "profile", "package"},
    "benchmark": {"benchmark"},
    "benchmark.batches": {"benchmark", "optimize", "profile"},
    "profile": {"profile"},
    "gates": set(),  # for tools.gate, which is no stage
}

# Of the spec, these read one key and nothing else.
READ_KEY = {"sources": {"sources", "fetch"}, "variants": {"fp16", "quantize_dynamic", "explain", "choose"}}
READ_SPEC = SCRIPTS - WITHOUT_MODEL - set().union(*READ_KEY.values())
# These import the model's network.py or data.py, which may import and read anything beside them, or copy data.py.
READ_FOLDER = {"prepare", "reference", "export", "quantize_static", "validate", "benchmark", "package"}

# By a file, or by the folder that it is in.
READ_FILE = {
    "requirements.txt": SCRIPTS,  # every script calls something that is pinned: pydantic, at least
    # What is copied into the release beside the rooms of the library that it carries.
    "serving": {"package"},
    "requirements-serving.txt": {"package"},
    "constraints.txt": {"package"},
}


def model_folder(clone: Path) -> str:
    return f"models/{YAML(typ='safe').load(clone / 'params.yaml')['model']}"


def readers(clone: Path, files: list[str]) -> dict[str, set[str]]:
    """The scripts that import or read each of `files`."""
    imported = {script: {room(path) for path in stage_files(script)} for script in SCRIPTS}
    read = {**READ_FILE, model_folder(clone): READ_FOLDER, f"{model_folder(clone)}/spec.yaml": READ_SPEC}
    found = {}
    for file in files:
        parents = (file, *(parent.as_posix() for parent in PurePath(file).parents))
        named = next((read[name] for name in parents if name in read), set())
        found[file] = named | {script for script in SCRIPTS if room(file) in imported[script]}
    return found


def longest(table: Mapping[str, set[str]], name: str) -> set[str]:
    """The entry of `table` under `name` or under the longest beginning of it."""
    while name not in table:
        name, dot, _ = name.rpartition(".")
        assert dot, f"{name} is new in params.yaml: enter here which scripts read it"
    return table[name]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose dvc.lock has its files as they are: the working tree may differ from what the pipeline ran on.

    data/ and artifacts/ are not there, and no edit is to them.
    """
    folder = make_clone(tmp_path_factory.mktemp("clone"))
    locked: dict[str, Any] = {}
    with opened(folder) as stages:
        for stage in stages:
            stage.save_deps(allow_missing=True)
            locked |= to_lockfile(stage)
    with (folder / "dvc.lock").open("w") as file:
        YAML().dump({"schema": "2.0", "stages": locked}, file)
    return folder


@pytest.fixture(scope="module")
def stages(clone: Path) -> Iterator[list[PipelineStage]]:
    with opened(clone) as found:
        yield found


@contextmanager
def opened(clone: Path) -> Iterator[list[PipelineStage]]:
    """The stages as DVC resolves them."""
    with Repo(str(clone)) as repo:
        yield list(repo.index.stages)


def changed(stages: Collection[PipelineStage], file: Path | None = None) -> set[str]:
    """The scripts that `dvc status` would give as changed; those of `file` alone are asked in a hundredth of the time.

    Of all variants of a stage or of none, for they differ in nothing that is edited.
    """
    found: dict[str, set[bool]] = {}
    for stage in stages:
        deps = [dep for dep in stage.deps if file is None or file.is_relative_to(dep.fs_path)]
        # One that is not there was never made.
        reruns = stage.cmd_changed or any(dep.exists and dep.status() for dep in deps)
        found.setdefault(stage.name.partition("@")[0], set()).add(reruns)
    assert all(len(answers) == 1 for answers in found.values()), found
    return {name for name, answers in found.items() if answers == {True}}


def reruns(stages: Collection[PipelineStage], file: Path, edit: Callable[[bytes], bytes]) -> set[str]:
    with edited(file, edit(file.read_bytes())):
        return changed(stages, file)


def with_a_line(content: bytes) -> bytes:
    return content + b"\n"


def with_another(name: str) -> Callable[[bytes], bytes]:
    """Gives the key `name` of a YAML file another value."""

    def edit(content: bytes) -> bytes:
        values = YAML(typ="safe").load(content)
        *sections, key = name.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[key] = "another"
        return dumped(values)

    return edit


def dumped(values: Any) -> bytes:
    buffer = io.BytesIO()
    YAML(typ="safe").dump(values, buffer)
    return buffer.getvalue()


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def files_in_git(clone: Path) -> list[str]:
    """All but what is edited by its keys, what says what reruns, and what the stages make."""
    listed = subprocess.run(["git", "ls-files"], cwd=clone, capture_output=True, text=True, check=True).stdout
    others = ("params.yaml", "dvc.yaml", "dvc.lock")
    return [name for name in listed.splitlines() if name not in others and not name.startswith("metrics/")]


def test_each_parameter_reruns_the_stages_that_read_it(clone, stages):
    path = clone / "params.yaml"
    expected = {name: longest(READ_PARAM, name) for name in leaves(YAML(typ="safe").load(path))}
    assert {name: reruns(stages, path, with_another(name)) for name in expected} == expected


def test_each_key_of_the_spec_reruns_the_stages_that_read_it(clone, stages):
    path = clone / model_folder(clone) / "spec.yaml"
    expected = {key: READ_SPEC | READ_KEY.get(key, set()) for key in YAML(typ="safe").load(path)}
    assert expected.keys() >= READ_KEY.keys()
    assert {key: reruns(stages, path, with_another(key)) for key in expected} == expected


def test_each_file_reruns_the_stages_that_import_or_read_it(clone, stages):
    expected = readers(clone, files_in_git(clone))
    assert set().union(*expected.values()) == SCRIPTS
    assert {name: reruns(stages, clone / name, with_a_line) for name in expected} == expected
    assert changed(stages) == set()  # all is as it was


def test_what_dvc_yaml_leaves_out_is_found(clone, stages):
    content = YAML(typ="safe").load(clone / "dvc.yaml")
    content["stages"]["slim"]["deps"].remove("onnx_release/measure")
    content["stages"]["report"]["params"].remove("validate")
    edits = [
        ("onnx_release/measure/numerics.py", with_a_line, "slim"),
        ("params.yaml", with_another("validate.seed"), "report"),
    ]
    complete = [reruns(stages, clone / file, edit) for file, edit, _ in edits]
    with edited(clone / "dvc.yaml", dumped(content)), opened(clone) as others:
        for (file, edit, stage), before in zip(edits, complete, strict=True):
            assert stage in before
            assert reruns(others, clone / file, edit) == before - {stage}


def test_plots_and_artifacts_in_dvc_yaml_rerun_nothing(clone):
    content = YAML(typ="safe").load(clone / "dvc.yaml")
    content["plots"] = content["plots"][1:]
    content["artifacts"] = {"another": {"path": "artifacts/fp32", "type": "model"}}
    with edited(clone / "dvc.yaml", dumped(content)), opened(clone) as stages:
        assert changed(stages) == set()


def test_a_script_imports_nothing_that_its_source_does_not_show():
    """The source shows imports inside functions too, which a stage comes to as it runs, so its modules are more."""
    packages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("onnx_release/**/__init__.py")}
    assert all((ROOT / path).read_text().count("\n") == 1 for path in packages)  # a docstring
    packages |= {"stages/__init__.py"}  # which says what Ctrl-C does
    for script in sorted(SCRIPTS):
        loaded = files_loaded_by(f"stages.{script}") - packages
        assert f"stages/{script}.py" in loaded
        assert loaded - imported_files(f"stages/{script}.py") == set()


def files_loaded_by(script: str) -> set[str]:
    """Paths of the repository's own modules that are there once `script` is imported, as if none had been before."""
    before = own_modules()
    try:
        forget(before)
        importlib.import_module(script)
        found = own_modules()
    finally:
        forget(own_modules())
        sys.modules.update(before)
    return {Path(module.__file__).relative_to(ROOT).as_posix() for module in found.values() if module.__file__}


def own_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] in OWN_PACKAGES}


def forget(modules: Mapping[str, ModuleType]) -> None:
    for name in modules:
        del sys.modules[name]
