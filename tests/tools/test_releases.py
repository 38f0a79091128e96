"""What takes every model to a release finds all of them, and tells a release that answers from one that does not."""

from dataclasses import replace
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_release.core.errors import ReleaseFolderError
from onnx_release.core.paths import ModelFiles
from onnx_release.core.types import Sample
from onnx_release.data.samples import SampleFile, write_samples
from onnx_release.runtime.release import open_release
from tests.clone import list_models
from tests.imports import ROOT
from tests.in_process import run_here
from tests.picture_release import digits_release
from tests.release_project import MODEL
from tests.served import serving
from tools import releases
from tools.new_model import TASKS
from tools.releases import NEW_MODELS, check_answer, check_succeeded, models_below, release_model, try_release


def test_every_folder_below_models_is_taken_and_every_task_of_new_model(tmp_path):
    for name in ("net", "another", "__pycache__"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "spec.yaml").write_text("")
    (tmp_path / "models/notes.txt").write_text("")
    (tmp_path / "models/of_another_branch/__pycache__").mkdir(parents=True)
    (tmp_path / "models/of_another_branch/__pycache__/network.pyc").write_text("")
    assert models_below(tmp_path / "models") == ["another", "net"]
    assert {options[options.index("--task") + 1] for options in NEW_MODELS.values()} == set(TASKS)
    assert {word for options in NEW_MODELS.values() for word in options} >= {"--images", "--weights"}
    assert "\nmake releases" in (ROOT / ".ci/run").read_text()


def test_a_model_that_there_is_not_is_named(tmp_path):
    result = run_here(ROOT, "tools.releases", "digits_rnn")
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no model digits_rnn: choose from digits_cnn, ")


def test_without_git_there_is_one_message(tmp_path):
    result = run_here(tmp_path, "tools.releases")
    assert result.returncode == 1
    assert result.stderr == ("error: this makes a clone of a git repository, and there is none here: run `git init`\n")


def test_what_a_command_has_printed_is_in_the_error():
    with pytest.raises(ReleaseFolderError, match="there is no model digits_rnn"):
        check_succeeded(run_here(ROOT, "tools.releases", "digits_rnn"))


def test_a_release_answers_as_the_pipeline_does_or_it_is_an_error(tmp_path):
    digits_release(tmp_path)
    files = ModelFiles(MODEL)
    release = open_release(tmp_path / files.release)
    sample = Sample({"image": np.full((1, 8, 8), 0.25, np.float32)})
    write_samples(tmp_path / files.evaluation_samples, [sample], 1, release.spec)
    samples = SampleFile(tmp_path / files.evaluation_samples)
    model = onnx.load(release.model)
    weights = next(one for one in model.graph.initializer if one.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(2), "weights"))
    onnx.save(model, tmp_path / "another.onnx")
    with serving(release.folder) as server:
        check_answer(server.port, release, tmp_path / files.variant("int8_static"), samples)
        # The picture's mean is 0.25, so that each logit is 0.5 more than the release has it.
        with pytest.raises(ReleaseFolderError, match=r"the output logits is not the pipeline's, off by 0\.5"):
            check_answer(server.port, release, tmp_path / "another.onnx", samples)
        other = replace(release, manifest=release.manifest.model_copy(update={"model": "net"}))
        with pytest.raises(ReleaseFolderError, match=r"/v2/models/net/infer gives 404"):
            check_answer(server.port, other, release.model, samples)


def test_what_fails_is_said_and_is_no_end():
    """As of a folder below models/ that has no spec.yaml."""
    passed, said = try_release("no_model")
    assert not passed and "\nerror: models.yaml lists no_model, and there is no folder models/no_model: " in said


@pytest.mark.parametrize("name", ["two", "new_tensor"])
def test_the_clone_of_a_model_keeps_up_no_other(tmp_path, monkeypatch, name):
    list_models(tmp_path, "one", "two")
    listed = {}

    def note(clone, tool, *_, **__):
        listed[tool] = (clone / "models.yaml").read_text()
        return CompletedProcess(tool, tool == "tools.repro", "", "it fails")

    monkeypatch.setattr(releases, "run", note)
    with pytest.raises(ReleaseFolderError, match="it fails"):
        release_model(tmp_path, name)
    assert listed["tools.repro"] == f"models:\n- {name}\n"
    assert ("tools.new_model" in listed) == (name in NEW_MODELS)
