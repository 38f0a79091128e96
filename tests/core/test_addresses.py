"""The names that DVC has for the stages of a model, and the entries of its locks."""

import pytest

from onnx_release.core.addresses import address, last_stages, lock_entries, lock_files, model_of

LOCK = """schema: '2.0'
stages:
  first:
    cmd: a
    deps:
    - path: x
  validate@fp32:
    cmd: b
"""


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("export", "pipelines/m_v2/dvc.yaml:export"),
        ("validate@fp32", "pipelines/m_v2/dvc.yaml:validate@fp32"),
        ("package", "package@m_v2"),
        ("report", "report@m_v2"),
    ],
)
def test_a_stage_has_an_address_that_names_its_model(stage, expected):
    assert address(stage, "m_v2") == expected
    assert model_of(expected) == "m_v2"


@pytest.mark.parametrize("stage", ["stages/dvc.yaml:hardware", "hardware", "metrics/m/dvc.yaml:hardware"])
def test_a_stage_of_no_model_has_none(stage):
    assert model_of(stage) == ""


def test_the_last_stages_are_all_of_a_model():
    assert last_stages("m") == ["package@m", "report@m"]


def test_the_locks_are_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        (tmp_path / "pipelines" / name).mkdir(parents=True)
    (tmp_path / "pipelines/b/dvc.lock").write_text("")
    found = [path.as_posix() for path in lock_files()]
    assert found == ["stages/dvc.lock", "pipelines/b/dvc.lock", "dvc.lock"]


def test_dvc_lock_is_divided_into_its_stages():
    entries = lock_entries(LOCK)
    assert list(entries) == ["", "first", "validate@fp32"]
    assert entries["validate@fp32"] == "  validate@fp32:\n    cmd: b\n"
    assert "".join(entries.values()) == LOCK
