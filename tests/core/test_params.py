"""params.yaml and a model's own values: every wrong key and value is named, and what is merged comes back as it was."""

import json

import pytest
from ruamel.yaml import YAML

from onnx_release.core.errors import DataError, ParameterError
from onnx_release.core.params import (
    Export,
    Gate,
    Params,
    ParamsAndGates,
    load_defaults,
    load_params,
    merge_params,
    write_params,
)
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget, Origin, Source
from tests.bounds import open_ended
from tests.imports import ROOT

GOOD = (ROOT / "params.yaml").read_text()
NET = ModelFiles("net")
THREADS = "threads:                    # thread counts; null is every core\n  - \n"
BATCHES = GOOD[GOOD.index("batches:") : GOOD.index("  threads:")]
EXPORT = GOOD[GOOD.index("exporter:") : GOOD.index("\n\nslim:")]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Read the parameters of the model net: params.yaml with one text in it replaced by another, and its own values."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/net").mkdir(parents=True)

    def loaded(old="", new="", own="{}"):
        assert old in GOOD
        (tmp_path / "params.yaml").write_text(GOOD.replace(old, new, 1))
        (tmp_path / "models/net/params.yaml").write_text(own)
        return merge_params(NET)

    return loaded


@pytest.fixture
def own(load):
    """Read the parameters of the model net with these values of its own."""
    return lambda text: load(own=text)


@pytest.fixture
def spec(make_spec):
    made = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    source = Source.model_validate({"name": "w.pth", "sha256": "a" * 64, "from": Origin(path="w.pth")})
    return made.model_copy(update={"variants": ["fp16"], "budget": Budget(sqnr_db=20), "sources": [source]})


def test_the_repository_s_own_file_loads(load):
    params = load()
    assert (params.export.exporter, params.export.opset) == ("auto", "auto")
    assert params.benchmark.threads == [None]


def test_a_number_in_scientific_notation_is_a_number_with_and_without_a_point(load):
    assert load("atol: 1.0e-4", "atol: 2e-4").slim.atol == 2e-4


def test_an_integer_will_do_for_a_number(load):
    assert load("minutes: 2 ", "minutes: 3 ").quantize_static.minutes == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  opset: auto", "  opset: '18'", r"export\.opset: give auto or an integer, not '18'"),
        ("  opset: auto", "  opset: true", r"export\.opset: give auto or an integer, not True"),
        ("  opset: auto", "  opset: auto\n  opsets: 18", r"export\.opsets: no such key; did you mean opset\?"),
        ("exporter: auto", "exporter: onnx", r"export\.exporter: .*'dynamo' or 'torchscript', not 'onnx'"),
        ("opset: auto", "opset: 12", r"export: opset 12 is out of range: the dynamo exporter takes 13 to 23"),
        ("opset: auto", "opset: 24", r"opset 24 is out of range"),
        ("calibration: 160", "calibration: 0", r"prepare\.calibration: .*greater than or equal to 1, not 0"),
        ("confidence: 0.95", "confidence: 95", r"validate\.confidence: .*less than 1, not 95"),
        ("confidence: 0.95", "", r"validate\.confidence: missing"),
        ("atol: 1.0e-4", "atol: .nan", r"slim\.atol: .*finite"),
        ("atol: 1.0e-4", "atol: -1.0", r"slim\.atol: .*not -1\.0"),
        ("intra_threads:", "intra_threads: two", r"runtime\.intra_threads: .*not 'two'"),
        (THREADS, "threads: [two]\n", r"benchmark\.threads\.0: .*not 'two'"),
        (THREADS, "threads: []\n", r"benchmark\.threads: .*at least 1 item"),
        (BATCHES, "batches:\n  - 0\n", r"benchmark\.batches\.0: .*greater than or equal to 1, not 0"),
        ("provider: auto", "provider: gpu", r"runtime\.provider: .*'tensorrt', not 'gpu'"),
        ("provider: auto", "providers: auto", r"runtime\.providers: no such key; did you mean provider\?"),
        ("gpu_mem_limit:", "gpu_mem_limit: 2GB", r"runtime\.cuda\.gpu_mem_limit: .*not '2GB'"),
        ("arena_extend_strategy: kNext", "arena_extend_strategy: next", r"runtime\.cuda\.arena_extend_strategy: "),
        ("execution_mode: sequential", "execution_mode: serial", r"runtime\.execution_mode: .*not 'serial'"),
        ("slim:\n", "slimming:\n", "slim: missing\n  slimming: no such key; did you mean slim?"),
        ("reference:\n  seed: 0 ", "reference: 0\n#", "reference: Input should be a valid dictionary .*not 0"),
        ("rounds: 5", "rounds: 4", r"benchmark\.rounds: .*greater than or equal to 5, not 4"),
        ("resamples: 2000", "resamples: 2000.0", r"validate\.resamples: .*not 2000\.0"),
        ("max: 0.05", "maxi: 0.05", r"gates\.0\.maxi: no such key; did you mean max\?"),
        ("max: 0.05", "max: 0.05\n  min: 0", r"gates\.0: the gate on summary\.accuracy_drop needs one of min, max, "),
        ("  max: 0.05\n", "", r"gates\.0: the gate on summary\.accuracy_drop needs one of min, max, "),
        ("regression: 0.02", "regression: -0.02", r"gates\.2\.max_regression: .*not -0\.02"),
        ("reference:\n  seed: 0 ", "reference:\n  seed: -1 ", r"reference\.seed: .*not -1"),
        ("intra_threads:", "intra_threads: 100000", r"runtime\.intra_threads: .*equal to 1024, not 100000"),
        ("rounds: 5", "rounds: 100000", r"benchmark\.rounds: .*equal to 1000, not 100000"),
        (BATCHES, "batches:\n  - 1e20\n", r"benchmark\.batches\.0: .*integer.*, not 1e\+20"),
        ("minutes: 2 ", "minutes: .inf ", r"quantize_static\.minutes: .*finite number, not inf"),
    ],
)
def test_a_bad_value_is_named(load, old, new, message):
    with pytest.raises(ParameterError, match=message) as caught:
        load(old, new)
    assert str(caught.value).startswith("params.yaml has wrong values:\n  ")


def test_a_model_s_spec_may_name_its_exporter():
    params = Export(exporter="auto", opset=18)
    assert params.for_model(None, "net") == params
    assert params.for_model("torchscript", "net") == Export(exporter="torchscript", opset=18)
    with pytest.raises(ParameterError, match=r"models/net/spec\.yaml: .*torchscript .* 13 to 20, .* is 23: set it"):
        Export(exporter="auto", opset=23).for_model("torchscript", "net")


@pytest.mark.parametrize(("exporter", "low", "high"), [("dynamo", 13, 23), ("torchscript", 13, 20)])
def test_each_exporter_has_its_range_of_opsets(load, exporter, low, high):
    for opset in (low, high):
        assert load(EXPORT, f"exporter: {exporter}\n  opset: {opset}").export.opset == opset
    for opset in (low - 1, high + 1):
        with pytest.raises(ParameterError, match=f"opset {opset} is .* the {exporter} exporter takes {low} to {high}"):
            load(EXPORT, f"exporter: {exporter}\n  opset: {opset}")


def test_every_problem_is_listed(load):
    with pytest.raises(ParameterError) as caught:
        load("calibration: 160             \n".strip(), "calibration: 0\n  more: 1")
    assert "prepare.calibration" in str(caught.value)
    assert "prepare.more" in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"params\.yaml is not there: run this from the repository root"):
        merge_params(NET)


def test_what_is_not_yaml_is_said_so(load):
    with pytest.raises(ParameterError, match=r"params\.yaml is not valid YAML"):
        load("exporter: auto", "exporter: [")


def test_every_number_has_both_ends():
    """But the opset, whose ends are the exporter's: test_each_exporter_has_its_range_of_opsets."""
    assert open_ended(Params) == ["Export.opset"]


@pytest.mark.parametrize("name", ["net", "minilm", "[net]", "''"])
def test_the_model_that_used_to_be_set_there_has_one_message(load, name):
    """As `dvc exp run -S model=NAME` writes it, too; another wrong key waits until that one is gone."""
    with pytest.raises(ParameterError) as caught:
        load("prepare:\n", f"model: {name}\nprepare:\n  calibrations: 1\n")
    assert str(caught.value) == (
        "params.yaml has the key model, and there is none now: models.yaml lists the models, and "
        "`make repro MODEL=NAME` runs one of them. Remove the key"
    )


def test_without_values_of_its_own_a_model_has_those_of_all(load):
    params = load()
    assert params == load(own="export: {}\nruntime: {cuda: {}}\n")
    assert params == ParamsAndGates.model_validate(YAML(typ="safe").load(GOOD))


def test_a_model_s_own_value_replaces_that_of_all_at_any_depth(own):
    params, defaults = own("export: {opset: 20}\nruntime: {tensorrt: {fp16: true}, arena: false}\n"), own("{}")
    assert (params.export.opset, params.export.exporter) == (20, defaults.export.exporter)
    assert (params.runtime.tensorrt.fp16, params.runtime.arena) == (True, False)
    assert params.runtime.tensorrt.workspace == defaults.runtime.tensorrt.workspace
    assert params.runtime.cuda == defaults.runtime.cuda
    assert params.model_copy(update={"export": defaults.export, "runtime": defaults.runtime}) == defaults


def test_a_list_replaces_a_list(own):
    params = own("quantize_dynamic: {operators: [Gemm]}\nbenchmark: {threads: [1, null]}\n")
    assert params.quantize_dynamic.operators == ["Gemm"]
    assert params.benchmark.threads == [1, None]
    assert own("gates: [{metric: summary.size_mb, max: 3}]\n").gates == [Gate(metric="summary.size_mb", max=3)]
    assert own("gates: []\n").gates == []


def test_null_is_a_value(load):
    two = ("intra_threads:", "intra_threads: 2")
    assert load(*two).runtime.intra_threads == 2
    assert load(*two, own="runtime: {intra_threads: null}").runtime.intra_threads is None
    for text in ("export: null", "export:\n  # opset: 20\n"):
        with pytest.raises(ParameterError, match=r"models/net/params\.yaml .*\n  export: .*dictionary.*, not None"):
            load(own=text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("export: {opsets: 20}", "export.opsets: no such key; did you mean opset?"),
        ("exports: {opset: 20}", "exports: no such key; did you mean export?"),
        ("model: net", "model: no such key"),
        ("runtime: {cuda: {device: 1}}", "runtime.cuda.device: no such key; did you mean device_id?"),
        ("gates: [{metric: summary.size_mb, maxi: 3}]", "gates.0.maxi: no such key; did you mean max?"),
        ("export: {opset: '20'}", "export.opset: give auto or an integer, not '20'"),
        ("export: {opset: 40}", "export: opset 40 is out of range: the dynamo exporter takes 13 to 23"),
    ],
)
def test_what_is_wrong_in_a_model_s_own_values_is_named_with_their_file(own, text, problem):
    with pytest.raises(ParameterError) as caught:
        own(text)
    assert str(caught.value).splitlines()[:2] == ["models/net/params.yaml has wrong values:", f"  {problem}"]


@pytest.mark.parametrize("text", ["[]", "20", "opset"])
def test_a_model_s_own_values_have_keys(own, text):
    with pytest.raises(ParameterError, match=r"models/net/params\.yaml has wrong values:\n  the file as a whole: "):
        own(text)


@pytest.mark.parametrize("text", ["", "# export: {opset: 20}\n"])
def test_a_model_without_values_of_its_own_says_so(own, text):
    with pytest.raises(ParameterError) as caught:
        own(text)
    assert str(caught.value) == (
        "models/net/params.yaml is empty: write `{}` for a model without values of its own, or run "
        "`git restore models/net/params.yaml` for the committed version"
    )


def test_a_model_without_the_file_has_no_values_of_its_own(load):
    load()
    NET.overrides.unlink()
    assert merge_params(NET) == load_defaults()


OWN = """
slim: {atol: 1.0e-5, rtol: 2e-7, skip_fusion_patterns: ["on", "1", "null"]}
benchmark: {threads: [null, 2], turn_seconds: 3}
runtime: {intra_threads: 3, tensorrt: {engine_cache: "a: b # c"}}
"""


def test_what_settings_writes_is_what_the_other_stages_read(load, spec):
    for params in (load(), load(own=OWN)):
        write_params(NET, params, spec)
        assert load_params(NET).model_dump() == params.model_dump(exclude={"gates"})


def test_the_file_has_each_part_of_the_spec_with_its_defaults(load, spec):
    """A key that a stage depends on must be there, or DVC refuses to run it."""
    write_params(NET, load(), spec)
    content = YAML(typ="safe", pure=True).load(NET.params.read_text())
    assert {*content} == {*load().model_dump(by_alias=True)} - {"gates"} | {"spec"}
    assert content["runtime"]["cuda"]["gpu_mem_limit"] is None
    found = content["spec"]
    assert {*found} == {"network", "sources", "variants", "exclude", "budget", "tolerance", "exporter"}
    assert found["tolerance"] == {"torch_rounding_multiple": 4, "atol": 1e-5, "rtol": 1e-4}
    assert found["budget"] == {"agreement": None, "accuracy_drop": None, "sqnr_db": 20, "cosine": None}
    assert found["variants"] == ["fp16"]
    assert found["sources"] == [
        {
            **{"name": "w.pth", "sha256": "a" * 64, "release": False, "trusted_pickle": False},
            "from": {"wheel": None, "member": None, "url": None, "path": "w.pth"},
        }
    ]
    assert found["network"] == {
        **{"task": "tensor", "images": None, "transformers": None, "labels": None, "derived": []},
        "batch": "auto",
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2, "multiple_of": 1}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2], "counts": None}],
    }


def test_a_spec_without_a_budget_has_the_key_too(load, make_spec):
    write_params(NET, load(), make_spec({"x": [1, 2]}, {"y": [1, 2]}))
    assert json.loads(NET.params.read_text())["spec"]["budget"] is None


def test_without_the_stage_settings_a_message_says_what_to_run(load):
    load()
    with pytest.raises(DataError) as caught:
        load_params(NET)
    assert str(caught.value) == "artifacts/net/params.json is not there: run `dvc repro`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"artifacts/net/params\.json is not JSON \(Expecting value.*\): run `dvc repro`"),
        ("[1]\n", r"artifacts/net/params\.json is not JSON \(it has no keys\): run `dvc repro`"),
        ('{"export": [', r"artifacts/net/params\.json is not JSON \(.*\): run `dvc repro`"),
        (
            '{"export": {"opset": 18}}\n',
            r"artifacts/net/params\.json is of another version of the stages \(prepare: missing; .*: run `make repro "
            r"MODEL=net`",
        ),
    ],
)
def test_a_damaged_file_of_the_stage_settings_is_named(load, text, message):
    load()
    NET.params.parent.mkdir(parents=True)
    NET.params.write_text(text)
    with pytest.raises(DataError, match=message):
        load_params(NET)
