"""models.yaml: the list is read in its order, and what is wrong with it is said with what to do."""

import pytest

from onnx_release.core.errors import ParameterError
from onnx_release.core.model_list import load_models, unlisted_models, unlisted_note

WHOLE = {"spec.yaml": "task: tensor\n", "params.yaml": "{}\n"}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Write models.yaml with this text, and a folder with these files for each model."""
    monkeypatch.chdir(tmp_path)

    def write(text, **folders):
        (tmp_path / "models.yaml").write_text(text)
        for name, files in folders.items():
            (tmp_path / "models" / name).mkdir(parents=True)
            for file, content in files.items():
                (tmp_path / "models" / name / file).write_text(content)

    return write


def refusal():
    """The message that the list is refused with."""
    with pytest.raises(ParameterError) as caught:
        load_models()
    return str(caught.value)


def test_the_list_keeps_its_order(models):
    models("# the models\nmodels:\n- b\n- a  # the second\n", a=WHOLE, b=WHOLE)
    assert load_models() == ["b", "a"]
    assert (unlisted_models(), unlisted_note()) == ([], None)


def test_a_name_may_be_the_beginning_of_another(models):
    models("models: [net, net_2, ne]\n", ne=WHOLE, net=WHOLE, net_2=WHOLE)
    assert load_models() == ["net", "net_2", "ne"]
    assert unlisted_models() == []


@pytest.mark.parametrize("text", ["models: []\n", "models:\n", "models:\n# - net\n"])
def test_an_empty_list_is_refused(models, text):
    models(text, net=WHOLE)
    assert refusal() == "models.yaml lists no model: add a line `- NAME` for a folder below models/"


def test_a_name_that_is_there_twice_is_refused(models):
    """As after a merge that keeps the lines of both sides."""
    models("models:\n- a\n- b\n- a\n", a=WHOLE, b=WHOLE)
    assert refusal() == "models.yaml lists a twice: remove one of the two lines"
    models("models: [b, a, b, a]\n")
    assert refusal() == "models.yaml lists a, b twice: remove one of the two lines"


def test_a_name_without_a_folder_is_refused(models):
    models("models: [net, nett]\n", net=WHOLE)
    assert refusal() == (
        "models.yaml lists nett, and there is no folder models/nett: correct the name, or remove it from the list"
    )


def test_a_folder_without_spec_yaml_is_refused(models):
    models("models: [net]\n", net={"params.yaml": "{}\n"})
    assert refusal() == (
        "models.yaml lists net, and models/net has no spec.yaml: write it as docs/bring-your-own-model.md says, or "
        "remove the name from the list"
    )


def test_a_folder_without_params_yaml_is_refused_until_it_has_what_the_message_says(models, tmp_path):
    models("models: [net]\n", net={"spec.yaml": "task: tensor\n"})
    assert refusal() == (
        "models.yaml lists net, and models/net has no params.yaml: write it, with the line `{}` if the model has no "
        "values of its own, or remove the name from the list"
    )
    (tmp_path / "models/net/params.yaml").write_text("{}\n")
    assert load_models() == ["net"]


@pytest.mark.parametrize("name", ["../secret", "models/net", "/etc", "..", "mobilenet-v2", "a b", "2nd", "net.partial"])
def test_a_name_that_is_no_identifier_is_refused(models, name):
    """Since it is part of the names of folders, Python modules and stages."""
    models(f"models: [net, {name}]\n", net=WHOLE)
    assert refusal() == (
        f"models.yaml lists {name!r}, which cannot be the name of a model: use English letters, digits and "
        "underscores, and rename the folder below models/ if it has this name"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models: [1]\n", "models.0: Input should be a valid string, not 1"),
        ("models: net\n", "models: Input should be a valid list, not 'net'"),
        ("model: net\n", "models: missing\n  model: no such key; did you mean models?"),
        ("models: [net]\nrest: 1\n", "rest: no such key"),
    ],
)
def test_what_is_no_list_of_names_is_refused_by_its_key(models, text, problem):
    models(text, net=WHOLE)
    assert refusal() == f"models.yaml has wrong values:\n  {problem}"


def test_a_list_that_is_not_there_is_asked_for(models, tmp_path):
    models("", net=WHOLE)
    (tmp_path / "models.yaml").unlink()
    assert refusal() == "models.yaml is not there: run this from the repository root, or write the file"


def test_a_folder_that_is_not_listed_is_named_with_what_to_do(models):
    """Folders without a spec.yaml are none of a model."""
    models("models: [net]\n", net=WHOLE, old=WHOLE, notes={"read.me": ""})
    assert unlisted_models() == ["old"]
    assert unlisted_note() == (
        "note: not on the list in models.yaml, and so not kept up: old. Add a line for each, as in `- old`, or remove "
        "its folder below models/"
    )
    models("models:\n- net\n- old\n")
    assert unlisted_note() is None


def test_many_folders_that_are_not_listed_are_counted(models):
    models("models: [net]\n", net=WHOLE, **dict.fromkeys("abcdefg", WHOLE))
    assert "so not kept up: a, b, c, d, e and 2 more. Add" in str(unlisted_note())
