"""dvc.yaml declares what the scripts really import and read."""

import re

import pytest
from ruamel.yaml import YAML

from onnx_release.core.params import Params
from onnx_release.core.paths import HARDWARE, PROVIDER, TARGET, variant_model
from onnx_release.core.variants import REDUCED, REFERENCES, SHIPPABLE, VARIANTS
from tests.imports import ROOT, imported_files, room, stage_files, third_party

DECLARED = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = {name: stage.get("do", stage) for name, stage in DECLARED.items()}
SPEC = "models/${model}/spec.yaml"
WITH_TORCH = {"reference", "export", "benchmark"}


def script(stage: str) -> str:
    return f"stages/{stage}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_rooms_of_what_the_script_imports(stage):
    imported = {room(path) for path in stage_files(stage)}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py") or dep.startswith("onnx_release/")}
    missing = "\n".join(f"      - {path}" for path in sorted(imported - declared))
    assert not missing, f"add to the deps of {stage} in dvc.yaml:\n{missing}"
    assert not declared - imported, f"{stage} imports these no longer: {sorted(declared - imported)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_calls_what_is_pinned_depends_on_the_pins(stage):
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    packages = {name.split("-")[0].split(".")[0].lower() for name in pinned} | {"PIL", "cpuinfo", "onnx_ir"}
    if third_party(imported_files(script(stage))) & packages:
        assert "requirements.txt" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_sections_that_the_script_reads(stage):
    text = (ROOT / script(stage)).read_text()
    if stage == "report":
        text += (ROOT / "onnx_release/report/results.py").read_text()
        text += "".join(path.read_text() for path in (ROOT / "onnx_release/report/templates").iterdir())
    sections = {(field.alias or name) for name, field in Params.model_fields.items()}
    read = re.findall(r"(?:params|load_params\(\))\.(\w+)(?:\.(\w+))?", text)
    keys: dict[str, set[str]] = {section.rstrip("_"): set() for section, _ in read}
    for section, key in read:
        keys[section.rstrip("_")].add(key)
    declared = [name for name in STAGES[stage].get("params", []) if isinstance(name, str)]
    assert {name.split(".")[0] for name in declared} == keys.keys() & sections
    # A single value of a section is enough where nothing else of it is read.
    for name in declared:
        section, _, key = name.partition(".")
        assert not key or keys[section] == {key}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_spec_or_on_the_keys_of_it_that_it_reads(stage):
    text = (ROOT / script(stage)).read_text()
    if "load_spec(" not in text:
        return
    in_part = [entry[SPEC] for entry in STAGES[stage].get("params", []) if isinstance(entry, dict)]
    as_a_whole = {"models/${model}", SPEC} & set(STAGES[stage]["deps"])
    assert bool(in_part) != bool(as_a_whole)
    if in_part:
        read = set(re.findall(r"(?:spec|model\))\.(\w+)", text))
        read |= {"variants"} if "made_variants(" in text else set()
        assert read == set(in_part[0])


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
        for path in (HARDWARE, TARGET, PROVIDER)
    }
    assert readers == {
        HARDWARE: {"benchmark", "optimize", "profile", "report", "package"},
        TARGET: {"quantize_dynamic", "quantize_static"},
        PROVIDER: {"validate", "benchmark", "profile", "package"},
    }


def test_every_variant_is_validated_timed_reported_and_may_be_packaged():
    assert tuple(STAGES["validate"]["matrix"]["variant"]) == VARIANTS
    references = {variant: variant_model(REFERENCES[variant]).parent.name for variant in REDUCED}
    assert DECLARED["explain"]["foreach"] == references
    assert set(SHIPPABLE) < set(VARIANTS)
    for variant in VARIANTS:
        assert f"artifacts/{variant}" in STAGES["benchmark"]["deps"]
    for variant in SHIPPABLE:
        assert f"artifacts/{variant}" in STAGES["package"]["deps"]
    for stage in ("choose", "report", "package"):
        assert "metrics/validate" in STAGES[stage]["deps"]
