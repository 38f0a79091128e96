"""Every dvc.yaml declares what the scripts really import and read."""

import re
from pathlib import Path

import pytest

from onnx_release.core.addresses import LAST
from onnx_release.core.params import Params
from onnx_release.core.paths import HARDWARE, MACHINE_PIPELINE, PIPELINE, ModelFiles
from onnx_release.core.variants import REDUCED, REFERENCES, SHIPPABLE, VARIANTS
from tests.declared_stages import declared_stages, stages_in
from tests.imports import ROOT, imported_files, room, stage_files, third_party
from tests.stage_reads import declared_keys
from tools.new_model import pipeline_text

# A person reads both from the first line to the last.
LINES = 530
MODEL = "net"
FILES = ModelFiles(MODEL)
TEMPLATE = Path("tools/templates/pipeline.jinja")
OF_MODELS = declared_stages(MODEL)
OF_MACHINE = stages_in((ROOT / MACHINE_PIPELINE).read_text())
STAGES = {**OF_MACHINE, **OF_MODELS}
WRITTEN_IN = {
    **dict.fromkeys(OF_MACHINE, MACHINE_PIPELINE),
    **dict.fromkeys(OF_MODELS, TEMPLATE),
    **dict.fromkeys(LAST, PIPELINE),
}
WITH_TORCH = {"reference", "export", "benchmark"}


def script(stage: str) -> str:
    return f"stages/{stage}.py"


def keys_of(stage: str, path: Path) -> list[str] | None:
    """The keys of a file among the params of a stage; none are all of them, and None is another file."""
    declared = [entry for entry in STAGES[stage].get("params", []) if isinstance(entry, dict)]
    found = [entry[path.as_posix()] or [] for entry in declared if path.as_posix() in entry]
    assert len(found) < 2
    return found[0] if found else None


def test_every_script_is_a_stage_and_the_files_stay_short():
    assert STAGES.keys() == {path.stem for path in (ROOT / "stages").glob("[!_]*.py")}
    assert not OF_MODELS.keys() & OF_MACHINE.keys()
    assert len((ROOT / PIPELINE).read_text().splitlines()) + len(pipeline_text(MODEL).splitlines()) <= LINES


@pytest.mark.parametrize("stage", OF_MODELS)
def test_a_stage_of_a_model_touches_no_other(stage):
    declared = OF_MODELS[stage]
    variants = declared.get("matrix", {}).keys() - {"model"}
    if stage in LAST:
        assert declared["matrix"] == {"model": "${models}"} and "wdir" not in declared
    else:
        assert variants <= {"variant"} and declared["wdir"] == "../.."
    assert declared["cmd"] == " ".join([f"python -m stages.{stage} {MODEL}", *("${item.variant}" for _ in variants)])
    made = [*declared.get("outs", []), *declared.get("metrics", []), *declared.get("plots", [])]
    paths = [path for entry in made for path in (entry if isinstance(entry, dict) else [entry])]
    of_models = [path for path in (*paths, *declared["deps"]) if path.startswith(("data/", "artifacts/", "metrics/"))]
    assert paths and set(paths) <= set(of_models)
    shared = {path for path in of_models if not re.match(rf"\w+/(\w+/)?{re.escape(MODEL)}[/.]?", f"{path}/")}
    assert shared <= {HARDWARE.as_posix()}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_rooms_of_what_the_script_imports(stage):
    imported = {room(path) for path in stage_files(stage)}
    declared = {room(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py") or dep.startswith("onnx_release/")}
    missing = "\n".join(f"      - {path}" for path in sorted(imported - declared))
    assert not missing, f"add to the deps of {stage} in {WRITTEN_IN[stage]}:\n{missing}"
    assert not declared - imported, f"{stage} imports these no longer: {sorted(declared - imported)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_calls_what_is_pinned_depends_on_the_pins(stage):
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    packages = {name.split("-")[0].split(".")[0].lower() for name in pinned} | {"PIL", "cpuinfo", "onnx_ir"}
    if third_party(imported_files(script(stage))) & packages:
        assert "requirements.txt" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", sorted(OF_MODELS.keys() - {"settings"}))
def test_params_are_the_parameters_and_the_parts_of_the_spec_that_the_script_reads(stage):
    expected, declared = declared_keys(stage), keys_of(stage, FILES.params) or []
    line = f"      - {FILES.params}: [{', '.join(sorted(expected, key=[*declared, *sorted(expected)].index))}]"
    assert set(declared) == expected, f"make this the params of {stage} in {WRITTEN_IN[stage]}:\n{line}"
    assert len(declared) == len(expected) and len(STAGES[stage].get("params", [])) == bool(expected)


def test_settings_reads_all_that_a_person_writes_but_the_gates():
    declared = [entry for entry in STAGES["settings"]["params"] if isinstance(entry, str)]
    assert declared == [field.alias or name for name, field in Params.model_fields.items()]
    assert keys_of("settings", FILES.overrides) == keys_of("settings", FILES.spec) == []
    assert FILES.params.as_posix() in STAGES["settings"]["outs"]


def test_the_stages_of_the_machine_run_every_time_and_depend_on_no_parameter():
    for stage in OF_MACHINE.values():
        assert stage["always_changed"] is True and stage["wdir"] == ".." and "params" not in stage


@pytest.mark.parametrize("stage", STAGES)
def test_torch_is_imported_only_where_the_network_runs(stage):
    assert ("torch" in third_party(imported_files(script(stage)))) == (stage in WITH_TORCH)


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_stay_in_git(stage):
    for kind in ("metrics", "plots"):
        for entry in STAGES[stage].get(kind, []):
            assert all(options["cache"] is False for options in entry.values())


def test_another_machine_reruns_what_is_timed_and_another_target_or_provider_what_it_decides():
    readers = {
        path: {name for name, stage in STAGES.items() if path.as_posix() in stage["deps"]}
        for path in (HARDWARE, FILES.target, FILES.provider)
    }
    assert readers == {
        HARDWARE: {"settings", "benchmark", "optimize", "profile", "report", "package"},
        FILES.target: {"quantize_dynamic", "quantize_static"},
        FILES.provider: {"validate", "benchmark", "profile", "package"},
    }


def test_every_variant_is_validated_timed_reported_and_may_be_packaged():
    assert tuple(STAGES["validate"]["matrix"]["variant"]) == VARIANTS
    assert tuple(STAGES["explain"]["matrix"]["variant"]) == REDUCED
    assert set(SHIPPABLE) < set(VARIANTS)
    for variant in VARIANTS:
        assert FILES.variant(variant).parent.as_posix() in STAGES["benchmark"]["deps"]
    for variant in SHIPPABLE:
        assert FILES.variant(variant).parent.as_posix() in STAGES["package"]["deps"]
    for variant in REDUCED:
        assert FILES.variant(REFERENCES[variant]).parent.as_posix() in STAGES["explain"]["deps"]
    for stage in ("choose", "report", "package"):
        assert (FILES.metrics / "validate").as_posix() in STAGES[stage]["deps"]


SOURCE = {
    "stages/one.py": """
from onnx_release.core.params import load_params
from onnx_release.core.spec import load_spec
from onnx_release.network.network import network_source
from onnx_release.room.page import Page, never

def main(model):
    params, spec = load_params(model), load_spec(model)
    print(params.quantize_static.minutes, Page(spec, params), network_source(model))
""",
    "onnx_release/core/params.py": "class Params: ...\ndef load_params(model): ...\n",
    "onnx_release/core/spec.py": """
class Spec:
    def checked(self):
        check_budget(self)

def check_budget(spec: Spec):
    return spec.budget

def load_spec(model) -> Spec: ...
""",
    "onnx_release/network/network.py": "def network_source(model): ...\n",
    "onnx_release/room/page.py": """
from onnx_release.core.params import Params
from onnx_release.core.spec import Spec
TEMPLATE = "page.md"

class Page:
    def __init__(self, spec: Spec, params: Params):
        self.spec, self.params = spec, params

    def text(self):
        return [TEMPLATE, self.spec.variants, rest(self.params)]

def rest(given: Params):
    return given.export.opset, given.runtime

def never(spec: Spec, params: Params):
    return spec.sources, params.slim
""",
    "onnx_release/room/templates/page.md": "{{ page.spec.tolerance.atol }} {{ page.params.validate_.confidence }}",
    "models/mine/network.py": "def build(raw):\n    def late(spec):\n        return spec.inputs\n",
}
READ = {
    *("quantize_static.minutes", "export.opset", "runtime", "validate.confidence"),
    *("spec.variants", "spec.tolerance", "spec.network"),
}


def test_what_a_stage_reads_is_found_in_what_it_may_call_and_nowhere_else(tmp_path):
    for name, text in SOURCE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert declared_keys("one", tmp_path) == READ
