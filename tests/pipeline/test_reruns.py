"""Every parameter, every part of a spec and every file is changed in turn, and DVC says which stages that reruns.

A stage reruns by itself where one of its deps or params changed. What reads its outputs reruns only if their bytes
changed too, of which tests/pipeline/test_end_to_end.py has examples. What to expect is not read from dvc.yaml: for
modules it is the rooms of what the scripts import, and all else stands here, as the scripts read it.
"""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from itertools import chain
from operator import getitem
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from dvc.dependency import param
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_lockfile
from ruamel.yaml import YAML

from onnx_release.core.addresses import LAST
from onnx_release.core.files import write_text
from onnx_release.core.imports import OWN_PACKAGES
from onnx_release.core.params import SPEC, SPEC_PARTS, merge_params, write_params
from onnx_release.core.paths import MODEL_LIST, PIPELINE, PIPELINES, ModelFiles
from onnx_release.core.spec import Spec, load_spec
from tests.clone import edited, list_models, make_clone
from tests.imports import ROOT, imported_files, room, stage_files
from tests.in_process import stage_and_command, working_in
from tools.new_model import pipeline_text

SCRIPTS = {path.stem for path in (ROOT / "stages").glob("[!_]*.py")}
OF_MACHINE = {"hardware", "sources"}
OF_MODEL = SCRIPTS - OF_MACHINE
# One name is the beginning of the other. What is changed is the first one's, unless a test says otherwise.
MODELS = (MODEL, OTHER) = ("digits", "digits_cnn")
FILES = ModelFiles(MODEL)

# A script and its model, "" for those of the machine.
Step = tuple[str, str]
# The stages of each step, one for each variant if it has some.
Stages = Mapping[Step, Sequence[PipelineStage]]

# The scripts that read a parameter, by the longest beginning of its name, apart from `settings`, which reads all of
# these in params.yaml and in models/NAME/params.yaml, and writes them to artifacts/NAME/params.json.
READ_PARAM: dict[str, set[str]] = {
    "prepare": {"prepare"},
    "reference": {"reference"},
    "export": {"export", "report"},
    "slim": {"slim"},
    "fp16": {"fp16"},
    "quantize_dynamic": {"quantize_dynamic"},
    "calibrate": {"calibrate"},
    "quantize_static.target": set(),  # the others read what `settings` made of `auto`
    "quantize_static.minutes": {"quantize_static"},
    "validate": {"validate"},
    "validate.confidence": {"validate", "report", "package"},
    "runtime": {"validate", "benchmark", "optimize", "profile", "package"},
    "benchmark": {"benchmark"},
    "benchmark.batches": {"benchmark", "optimize", "profile"},
    "profile": {"profile"},
}
GATES = "gates"  # in params.yaml too, for tools.gate, which is no stage

# The scripts that read a part of the spec, again apart from `settings`. A checkpoint that needs its code to run is
# among the sources. `prepare` says how many samples calibrate, if the model is quantized.
READ_PART = {
    "sources": {"fetch", "reference", "export", "benchmark", "package"},
    "variants": {
        *("prepare", "fp16", "quantize_dynamic", "calibrate", "quantize_static", "validate", "explain", "choose"),
        *("report", "package"),
    },
    "exclude": {"quantize_dynamic", "quantize_static", "package"},
    "budget": {"quantize_static", "validate", "report", "package"},
    "tolerance": {"export", "validate", "report", "package"},
    "exporter": {"export", "package"},
    "network": {
        *("prepare", "reference", "export", "fp16", "calibrate", "quantize_static", "validate", "benchmark"),
        *("optimize", "profile", "report", "package"),
    },
}
# These import the model's network.py or data.py, which may import and read anything beside them, or copy data.py.
READ_FOLDER = {
    *("prepare", "reference", "export", "fp16", "calibrate", "quantize_static", "validate", "benchmark", "optimize"),
    *("profile", "package"),
}

# By a file, or by the folder that it is in.
READ_FILE = {
    "requirements.txt": SCRIPTS,  # every script calls something that is pinned: pydantic, at least
    # What is copied into the release beside the rooms of the library that it carries.
    "serving": {"package"},
    "requirements-serving.txt": {"package"},
    "constraints.txt": {"package"},
    "onnx_release/types.py": {"package"},
}
# They only give names a path that stays.
NAMES_ONLY = ("onnx_release/types.py", "onnx_release/checkpoint.py")


def steps(scripts: Collection[str], *models: str) -> set[Step]:
    """The scripts for each of the models, by default for all, and those of the machine once."""
    of_machine = {(script, "") for script in OF_MACHINE.intersection(scripts)}
    return of_machine | {(script, model) for script in OF_MODEL.intersection(scripts) for model in models or MODELS}


def readers(files: list[str]) -> dict[str, set[Step]]:
    """Which steps import or read each of `files`."""
    imported = {script: {room(path) for path in stage_files(script)} for script in SCRIPTS}
    found = {}
    for file in files:
        parents = (file, *(parent.as_posix() for parent in PurePath(file).parents))
        named = next((READ_FILE[name] for name in parents if name in READ_FILE), set())
        importing = {script for script in SCRIPTS if room(file) in imported[script] and file not in NAMES_ONLY}
        found[file] = steps(named | importing)
        # Of these two, the steps depend on what is in them, and not on their bytes.
        of_model = [model for model in MODELS if ModelFiles(model).folder.as_posix() in parents]
        if of_model and PurePath(file).name not in ("spec.yaml", "params.yaml"):
            found[file] |= steps(READ_FOLDER, *of_model)
    return found


def longest(table: Mapping[str, set[str]], name: str) -> set[str]:
    """The entry of `table` under `name` or under the longest beginning of it."""
    while name not in table:
        name, dot, _ = name.rpartition(".")
        assert dot, f"{name} is new in params.yaml: enter here which scripts read it"
    return table[name]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone with the stages of two models, whose lock files have its files as they are: it has not run.

    Of data/ and artifacts/ only the models' parameters are there, and no edit is to the rest.
    """
    folder = make_clone(tmp_path_factory.mktemp("clone"))
    shutil.copytree(folder / ModelFiles(OTHER).folder, folder / FILES.folder)
    list_models(folder, *MODELS)
    shutil.rmtree(folder / PIPELINES)
    for model in MODELS:
        write_pipeline(folder, model)
    with read_once():
        for model in MODELS:
            write_settings(folder, model)
        lock(folder)
        yield folder


def write_pipeline(clone: Path, model: str) -> None:
    write_text(clone / ModelFiles(model).pipeline, pipeline_text(model))


def write_settings(clone: Path, model: str) -> None:
    """Write what the stage `settings` writes of the parameters."""
    with working_in(clone):
        files = ModelFiles(model)
        write_params(files, merge_params(files), load_spec(model))


def lock(clone: Path) -> None:
    locked: dict[str, dict[str, Any]] = {}
    with opened(clone) as stages:
        for stage in chain(*stages.values()):
            stage.save_deps(allow_missing=True)
            locked.setdefault(stage.path, {}).update(to_lockfile(stage))
    for path, content in locked.items():
        Path(path).with_suffix(".lock").write_bytes(dumped({"schema": "2.0", "stages": content}))


@contextmanager
def read_once() -> Iterator[None]:
    """Let DVC parse each content of a file of parameters once, and not again for every stage that depends on it.

    Each value is then looked up by its key; DVC's own way walks all of the file for each.
    """
    parsed: dict[bytes, Any] = {}
    parse = param.load_path

    def load(path: str, *arguments: Any, **options: Any) -> Any:
        content = Path(path).read_bytes()
        if content not in parsed:
            parsed[content] = parse(path, *arguments, **options)
        return parsed[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(param, "load_path", load)
        patch.setattr(param, "dpath", SimpleNamespace(get=value_at))
        yield


def value_at(content: Any, key: str, separator: str) -> Any:
    return reduce(getitem, key.split(separator), content)


@pytest.fixture(scope="module")
def stages(clone: Path) -> Iterator[Stages]:
    with opened(clone) as found:
        yield found


@contextmanager
def opened(clone: Path) -> Iterator[Stages]:
    """The stages as DVC resolves them."""
    found: dict[Step, list[PipelineStage]] = {}
    with Repo(str(clone)) as repo:
        for stage in repo.index.stages:
            name, model, _ = stage_and_command(stage)
            found.setdefault((name, model), []).append(stage)
        yield found


def changed(stages: Stages, file: Path | None = None) -> set[Step]:
    """The steps that `dvc status` would give as changed; those of `file` alone are asked in a hundredth of the time.

    Of all variants of a stage or of none, for they differ in nothing that is edited.
    """
    found: dict[Step, set[bool]] = {}
    same: dict[str, bool] = {}  # the checksum of a file or a folder is the same in all stages that depend on it
    places = {path.as_posix() for path in (file, *file.parents)} if file else set()
    for step, stage in [(step, stage) for step, variants in stages.items() for stage in variants]:
        reruns = stage.cmd_changed
        for dep in stage.deps:
            if file and dep.fs_path not in places:
                continue
            if isinstance(dep, ParamsDependency):
                reruns |= bool(dep.status())
            elif dep.exists:  # or it was never made
                same[dep.fs_path] = same.get(dep.fs_path) or bool(dep.status())
                reruns |= same[dep.fs_path]
        found.setdefault(step, set()).add(reruns)
    assert all(len(answers) == 1 for answers in found.values()), found
    return {name for name, answers in found.items() if answers == {True}}


def reruns(stages: Stages, file: Path, edit: Callable[[bytes], bytes]) -> set[Step]:
    with edited(file, edit(file.read_bytes())):
        return changed(stages, file)


def with_a_line(content: bytes) -> bytes:
    return content + b"\n"


def with_a_comment(content: bytes) -> bytes:
    return b"# Another comment.\n" + content + b"# And another.\n"


def with_another(name: str, value: Any = "another") -> Callable[[bytes], bytes]:
    """Gives the key `name` of a YAML or JSON file another value."""

    def edit(content: bytes) -> bytes:
        values = YAML(typ="safe").load(content)
        *sections, key = name.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
        return dumped(values)

    return edit


def dumped(values: Any) -> bytes:
    """As JSON, which is YAML, too."""
    return json.dumps(values).encode()


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def files_in_git(clone: Path) -> list[str]:
    """All but what is edited by its keys, what says what reruns, and what the stages make."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout
    others = ("params.yaml", "models.yaml")
    of_dvc = ("dvc.yaml", "dvc.lock")
    files = [name for name in listed.splitlines() if name not in others and PurePath(name).name not in of_dvc]
    return [name for name in files if not name.startswith("metrics/")]


def test_each_parameter_reruns_the_settings_of_all_models_and_the_stages_that_read_it(clone, stages):
    path, settings = clone / "params.yaml", clone / FILES.params
    names = list(leaves(YAML(typ="safe").load(path)))
    expected = {name: set() if name == GATES else steps({"settings"}) for name in names}
    assert {name: reruns(stages, path, with_another(name)) for name in names} == expected

    names.remove(GATES)
    written = YAML(typ="safe").load(settings)
    assert list(leaves({key: value for key, value in written.items() if key != SPEC})) == names
    expected = {name: steps(longest(READ_PARAM, name), MODEL) for name in names}
    assert {name: reruns(stages, settings, with_another(name)) for name in names} == expected


def test_each_part_of_the_spec_reruns_the_settings_and_the_stages_that_read_it(clone, stages):
    path, settings = clone / FILES.spec, clone / FILES.params
    for key in YAML(typ="safe").load(path):
        assert reruns(stages, path, with_another(key)) == steps({"settings"}, MODEL), key

    parts = YAML(typ="safe").load(settings)[SPEC]
    assert parts.keys() == READ_PART.keys() == {"network", *SPEC_PARTS}
    assert {*parts["network"], *SPEC_PARTS} == Spec.model_fields.keys()
    names = [f"{SPEC}.{part}" for part in SPEC_PARTS] + [f"{SPEC}.network.{key}" for key in parts["network"]]
    expected = {name: steps(READ_PART[name.split(".")[1]], MODEL) for name in names}
    assert {name: reruns(stages, settings, with_another(name)) for name in names} == expected


@pytest.mark.parametrize(
    ("name", "value", "scripts"),
    [
        ("export.opset", 20, READ_PARAM["export"]),
        ("runtime.cuda.device_id", 1, READ_PARAM["runtime"]),
        ("benchmark.batches", [2, 4], READ_PARAM["benchmark.batches"]),
        ("quantize_static.target", "avx2", set()),
        ("profile.calls", 7, {"profile"}),
        ("export.opset", "auto", set()),  # as it is for all
        (GATES, [], set()),
    ],
)
def test_a_parameter_of_one_model_reruns_its_stages_that_read_it(clone, stages, name, value, scripts):
    """In models/NAME/params.yaml; the other model's name begins with this one's."""
    path = clone / FILES.overrides
    check_one_model(clone, stages, path, with_another(name, value)(path.read_bytes()), scripts)


@pytest.mark.parametrize(
    ("before", "after", "scripts"),
    [
        (b"agreement: 0.86", b"agreement: 0.5", READ_PART["budget"]),
        (b"- fp16\n", b"", READ_PART["variants"]),
        (b"max: 64", b"max: 32", READ_PART["network"]),
        (b"path: weights.pth", b"path: ./weights.pth", READ_PART["sources"]),
        (b"\nvariants:", b"\ntolerance: {rtol: 0.001}\nvariants:", READ_PART["tolerance"]),
        (b"\nvariants:", b"\ntolerance: {rtol: 0.0001}\nvariants:", set()),  # as it is by itself
    ],
)
def test_a_line_of_a_spec_reruns_the_stages_of_the_model_that_read_it(clone, stages, before, after, scripts):
    path = clone / FILES.spec
    content = path.read_bytes()
    assert content.count(before) == 1
    check_one_model(clone, stages, path, content.replace(before, after), scripts)


def check_one_model(clone: Path, stages: Stages, path: Path, content: bytes, scripts: set[str]) -> None:
    """With this content of a file, `settings` of the model reruns, and what it writes then reruns `scripts`."""
    written = clone / FILES.params
    before = written.read_bytes()
    try:
        with edited(path, content):
            assert changed(stages, path) == steps({"settings"}, MODEL)
            write_settings(clone, MODEL)
            assert changed(stages, written) == steps(scripts, MODEL)
    finally:
        written.write_bytes(before)


@pytest.mark.parametrize("path", [Path("params.yaml"), FILES.spec, FILES.overrides])
def test_a_comment_reruns_nothing(clone, stages, path):
    assert reruns(stages, clone / path, with_a_comment) == set()


def test_each_file_reruns_the_stages_that_import_or_read_it(clone, stages):
    expected = readers(files_in_git(clone))
    assert set().union(*expected.values()) == steps(SCRIPTS)
    assert {name: reruns(stages, clone / name, with_a_line) for name in expected} == expected
    assert changed(stages) == set()  # all is as it was


def test_what_dvc_yaml_leaves_out_is_found(clone, stages):
    """Of the stages of one model, which no other's lack, and of the last ones."""
    of_model, last = (YAML(typ="safe").load(clone / path) for path in (FILES.pipeline, PIPELINE))
    of_model["stages"]["slim"]["deps"].remove("onnx_release/measure")
    (params,) = last["stages"]["report"]["params"]
    params["artifacts/${item.model}/params.json"].remove("spec.budget")
    edits = [
        ("onnx_release/measure/numerics.py", with_a_line, steps({"slim"}, MODEL)),
        (FILES.params, with_another(f"{SPEC}.budget"), steps({"report"}, MODEL)),
    ]
    complete = [reruns(stages, clone / file, edit) for file, edit, _ in edits]
    with ExitStack() as stack:
        for path, content in ((FILES.pipeline, of_model), (PIPELINE, last)):
            stack.enter_context(edited(clone / path, dumped(content)))
        others = stack.enter_context(opened(clone))
        for (file, edit, left_out), before in zip(edits, complete, strict=True):
            assert left_out <= before
            assert reruns(others, clone / file, edit) == before - left_out


def test_other_models_on_the_list_and_other_plots_and_artifacts_rerun_nothing_of_a_model(clone):
    """One model is taken off the list, and another comes before the one whose plots and artifacts change."""
    pipeline = clone / ModelFiles(OTHER).pipeline
    content = YAML(typ="safe").load(pipeline)
    del content["plots"][0], content["artifacts"]["fp16"]
    content["plots"].append(f"../../{FILES.report}/another.svg")
    content["artifacts"]["release"]["labels"] = ["another"]
    young = "minilm"
    with edited(clone / MODEL_LIST, b""), edited(pipeline, dumped(content)), ExitStack() as stack:
        list_models(clone, young, OTHER)
        write_pipeline(clone, young)
        stack.callback(shutil.rmtree, clone / ModelFiles(young).pipeline.parent)
        stages = stack.enter_context(opened(clone))
        assert {model for _, model in stages} == {young, MODEL, OTHER, ""}
        assert {model for script, model in stages if script in LAST} == {young, OTHER}
        check_all_are_known({step: stages[step] for step in stages if step[1] != young}, clone)


def check_all_are_known(stages: Stages, clone: Path) -> None:
    """Every step is in its lock file, with the command that it has and with a file that all of them depend on."""
    assert changed(stages, clone / "requirements.txt") == set()
    assert reruns(stages, clone / "requirements.txt", with_a_line) == {*stages}


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
