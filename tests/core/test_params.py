"""params.yaml: every wrong key and value is named."""

import pytest

from onnx_release.core.errors import ParameterError
from onnx_release.core.params import Params, load_params
from tests.bounds import open_ended
from tests.imports import ROOT

GOOD = (ROOT / "params.yaml").read_text()
THREADS = "threads:                    # thread counts; null is every core\n  - \n"
BATCHES = GOOD[GOOD.index("batches:") : GOOD.index("  threads:")]
EXPORT = GOOD[GOOD.index("exporter:") : GOOD.index("\n\nslim:")]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load params.yaml with one text in it replaced by another."""
    monkeypatch.chdir(tmp_path)

    def loaded(old="", new=""):
        assert old in GOOD
        (tmp_path / "params.yaml").write_text(GOOD.replace(old, new, 1))
        return load_params()

    return loaded


def test_the_repository_s_own_file_loads(load):
    params = load()
    assert params.model == "mobilenet_v2"
    assert params.export.opset == 18
    assert params.benchmark.threads == [None]


def test_a_number_in_scientific_notation_is_a_number_with_and_without_a_point(load):
    assert load("atol: 1.0e-4", "atol: 2e-4").slim.atol == 2e-4


def test_an_integer_will_do_for_a_number(load):
    assert load("minutes: 2 ", "minutes: 3 ").quantize_static.minutes == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  opset: 18", "  opset: '18'", r"export\.opset: .*integer, not '18'"),
        ("  opset: 18", "  opset: 18\n  opsets: 18", r"export\.opsets: no such key; did you mean opset\?"),
        ("exporter: dynamo", "exporter: onnx", r"export\.exporter: .*'dynamo' or 'torchscript', not 'onnx'"),
        ("opset: 18", "opset: 12", r"export: opset 12 is out of range: the dynamo exporter takes 13 to 23"),
        ("opset: 18", "opset: 24", r"opset 24 is out of range"),
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
        *(
            ("model: mobilenet_v2", f"model: '{name}'", r"model: a model has the name of its folder below models/")
            for name in ("../secret", "models/mobilenet_v2", "/etc", "..", "mobilenet-v2", "")
        ),
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
    with pytest.raises(ParameterError, match=message):
        load(old, new)


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
        load_params()


def test_what_is_not_yaml_is_said_so(load):
    with pytest.raises(ParameterError, match=r"params\.yaml is not valid YAML"):
        load("model: mobilenet_v2", "model: [")


def test_every_number_has_both_ends():
    """But the opset, whose ends are the exporter's: test_each_exporter_has_its_range_of_opsets."""
    assert open_ended(Params) == ["Export.opset"]
