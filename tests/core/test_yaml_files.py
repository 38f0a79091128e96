"""YAML files are read strictly, and what is wrong with one is said by key."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError, field_validator

from onnx_release.core.errors import ParameterError, SpecError
from onnx_release.core.yaml_files import Strict, parse_yaml, read_yaml


class Inner(Strict):
    size: int
    rate: float


class Outer(Strict):
    name: str
    inner: Inner = Field(alias="from")

    @field_validator("name")
    @classmethod
    def short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("a name has five letters at most")
        return name


GOOD = "name: net\nfrom:\n  size: 3\n  rate: 0.5\n"


@pytest.fixture
def read(tmp_path):
    """Read this text as a file."""

    def read_text(text, error=ParameterError):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        return read_yaml(tmp_path / "a.yaml", Outer, error)

    return read_text


def test_a_good_file_becomes_a_model_that_cannot_change(read):
    outer = read(GOOD)
    assert (outer.name, outer.inner.size, outer.inner.rate) == ("net", 3, 0.5)
    with pytest.raises(ValidationError, match="frozen"):
        outer.name = "other"


def test_a_change_to_what_was_read_does_not_reach_the_next_who_reads_it():
    parse_yaml(GOOD)["from"]["size"] = 4
    assert parse_yaml(GOOD)["from"]["size"] == 3


@pytest.mark.parametrize(
    ("written", "number"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("1E+2", 100.0), (".5", 0.5), ("-3", -3.0)]
)
def test_numbers_are_those_of_yaml_1_2(read, written, number):
    assert read(GOOD.replace("0.5", written)).inner.rate == number


def test_no_is_a_word_and_not_a_boolean(read):
    assert read(GOOD.replace("net", "no")).name == "no"


def test_letters_beyond_ascii_are_read_as_utf_8(read):
    assert read(GOOD.replace("net", "ä")).name == "ä"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name: net\n", "", "name: missing"),
        ("  size: 3\n", "", "from.size: missing"),
        ("from:\n  size: 3\n  rate: 0.5\n", "", "from: missing"),
        ("net", "network", "name: a name has five letters at most, not 'network'"),
        ("net", "3", "name: Input should be a valid string, not 3"),
        ("size: 3", "size: '3'", "from.size: Input should be a valid integer, not '3'"),
        ("size: 3", "size: 3.0", "from.size: Input should be a valid integer, not 3.0"),
        ("size: 3", "size: true", "from.size: Input should be a valid integer, not True"),
        ("rate: 0.5", "rate: '1e-4'", "from.rate: Input should be a valid number, not '1e-4'"),
        ("rate: 0.5", "rate: null", "from.rate: Input should be a valid number, not None"),
        ("size: 3", "size: 3\n  siez: 3", "from.siez: no such key; did you mean size?"),
        ("name: net", "name: net\nnames: net", "names: no such key; did you mean name?"),
        ("name: net", "name: net\nform: net", "form: no such key; did you mean from?"),
        ("name: net", "name: net\nzzz: net", "zzz: no such key"),
        ("name: net", "name: net\ninner: net", "inner: no such key"),  # the field's name, not the key's
    ],
)
def test_a_wrong_key_is_said_in_one_line(read, tmp_path, old, new, problem):
    assert old in GOOD
    with pytest.raises(ParameterError) as caught:
        read(GOOD.replace(old, new))
    assert str(caught.value) == f"{tmp_path / 'a.yaml'} has wrong values:\n  {problem}"


def test_every_wrong_key_has_its_line(read):
    with pytest.raises(ParameterError) as caught:
        read("name: 1\nfrom: {size: 3}\n")
    assert str(caught.value).splitlines()[1:] == [
        "  name: Input should be a valid string, not 1",
        "  from.rate: missing",
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "null"])
def test_an_empty_file_is_said_to_be_empty(read, tmp_path, text):
    path = tmp_path / "a.yaml"
    with pytest.raises(ParameterError) as caught:
        read(text)
    assert str(caught.value) == f"{path} is empty: run `git restore {path}` for the committed version"


@pytest.mark.parametrize("text", ["- name\n", "name"])
def test_a_file_that_is_no_mapping_is_refused_as_a_whole(read, text):
    with pytest.raises(ParameterError, match="the file as a whole: Input should be a valid dictionary"):
        read(text)


@pytest.mark.parametrize(
    "text", ["name: [", "\tname: net", "name: 'net", GOOD + "---\n" + GOOD, GOOD + "name: again\n"]
)
def test_what_is_not_one_yaml_document_is_refused(read, text):
    with pytest.raises(ParameterError, match=r"a\.yaml is not valid YAML: "):
        read(text)


def test_a_tag_that_would_run_code_is_not_run(read, tmp_path):
    ran = tmp_path / "ran"
    with pytest.raises(ParameterError, match="is not valid YAML: could not determine a constructor"):
        read(f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{ran}']]\n")
    assert not ran.exists()


def test_the_error_is_of_the_kind_that_the_caller_names(read):
    with pytest.raises(SpecError):
        read("name: [", SpecError)
    with pytest.raises(SpecError):
        read("name: 1", SpecError)
    with pytest.raises(SpecError, match=r"gone\.yaml is not there: run this from the repository root"):
        read_yaml(Path("gone.yaml"), Outer, SpecError)


class Listed(Strict):
    items: list[Inner]
    named: dict[str, Inner]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("items: [{size: 1, rate: 1, rat: 1}]\nnamed: {}", "items.0.rat: no such key; did you mean rate?"),
        ("items: []\nnamed: {a: {size: 1, rate: 1, siez: 1}}", "named.a.siez: no such key; did you mean size?"),
        ("items: []\nnamed: {}\nrate: 1", "rate: no such key"),  # a key of another section does not help
    ],
)
def test_the_key_that_is_suggested_is_one_that_may_stand_there(tmp_path, text, problem):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ParameterError) as caught:
        read_yaml(tmp_path / "a.yaml", Listed, ParameterError)
    assert str(caught.value).splitlines()[1:] == [f"  {problem}"]


@pytest.mark.parametrize("content", [b"name: \xe4", b"name: 2020-99-99"])
def test_letters_of_another_encoding_and_impossible_dates_are_no_yaml(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ParameterError, match=r"a\.yaml is not valid YAML"):
        read_yaml(tmp_path / "a.yaml", Outer, ParameterError)


def test_a_key_that_stands_twice_is_named_without_how_a_program_may_allow_it(read):
    with pytest.raises(ParameterError) as caught:
        read(GOOD + "name: again\n")
    assert 'found duplicate key "name"' in str(caught.value) and "suppress" not in str(caught.value)


def test_what_git_could_not_merge_is_said_so(read, tmp_path):
    with pytest.raises(ParameterError) as caught:
        read("<<<<<<< HEAD\nname: a\n=======\nname: b\n>>>>>>> other\n")
    assert str(caught.value).startswith(f"git could not merge {tmp_path / 'a.yaml'}:\n  edit {tmp_path / 'a.yaml'}: ")


def test_all_that_git_could_not_merge_is_named_with_what_to_do(tmp_path, monkeypatch):
    """The two lists and the values of a model are for a person; the locks and the metrics are made by a run."""
    monkeypatch.chdir(tmp_path)
    conflict = "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other\n"
    written = ("params.yaml", "models.yaml", "pipelines/net/dvc.yaml", "models/net/params.yaml", "models/net/spec.yaml")
    locks = ("stages/dvc.lock", "pipelines/net/dvc.lock", "dvc.lock")
    made = (*locks, "metrics/net/summary.json")
    for name in (*written, *made):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(conflict)
    with pytest.raises(ParameterError) as caught:
        read_yaml(Path("models.yaml"), Outer, ParameterError)
    first, edit, checkout, run, where = str(caught.value).splitlines()
    assert first == f"git could not merge {', '.join((*made, *written))}:"
    assert edit.startswith(f"  edit {', '.join(written)}: keep one side of each part")
    assert checkout.startswith(f"  git checkout HEAD -- {' '.join(locks)} metrics    # ")
    assert run.startswith("  make repro ") and where == "see Merging in docs/review.md"


def test_the_machine_s_lock_is_not_taken_back_where_it_was_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(ParameterError) as caught:
        read_yaml(Path("dvc.lock"), Outer, ParameterError)
    assert "\n  git checkout HEAD -- dvc.lock metrics    # " in str(caught.value)
