"""A new model's folder runs as it is written; it is written and listed whole or not at all; nothing else is touched."""

import errno
import hashlib
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dvc.utils.hydra import apply_overrides
from PIL import Image

from onnx_release.core.errors import (
    CheckpointError,
    DataError,
    NetworkError,
    ParameterError,
    ReleaseError,
    SourceError,
    SpecError,
)
from onnx_release.core.files import write_text
from onnx_release.core.model_list import read_list
from onnx_release.core.params import Export, Prepare, load_defaults, merge_params, write_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.checksums import tree_sha256
from onnx_release.data.fetch import fetch_sources
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, without_batch_axis, write_splits
from onnx_release.export.export import export_network
from onnx_release.measure.answers import check_answers
from onnx_release.network.network import check_outputs, load_network, run_network
from onnx_release.runtime.session import open_session, run_session
from tests.imports import ROOT
from tests.in_process import run_here, working_in
from tools import new_model
from tools.new_model import TASKS, pipeline_text, write_model
from tools.pipelines import main as write_pipelines

FILES = ModelFiles("mine")
CODE = ("network.py", "data.py")
LISTED = "# what is kept up\nmodels:\n- net  # the first\n# no more\n"
WRITTEN = {"models.yaml", "pipelines/mine/dvc.yaml"}


@pytest.fixture(autouse=True)
def root(tmp_path):
    """A repository of no models but a list, as the working directory and the place to import models from."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models.yaml").write_text(LISTED)
    with working_in(tmp_path):
        yield tmp_path


@pytest.fixture
def photographs(root):
    """photographs/ with two classes of three pictures each."""
    for label, shade in (("cats", 40), ("dogs", 200)):
        (root / "photographs" / label).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (300, 260), (shade, index, 0)).save(root / "photographs" / label / f"{index}.png")
    return root / "photographs"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_runs_from_its_sources_to_an_answer_that_onnx_gives_too(root, task):
    write_model("mine", task)
    assert files(root) == WRITTEN | {f"models/mine/{name}" for name in ("spec.yaml", "params.yaml", *CODE)}
    spec, raw = load_spec("mine"), FILES.raw
    fetch_sources("mine", spec.sources, raw)
    data, network = load_data("mine"), load_network("mine", raw)
    write_splits(data, FILES, spec, Prepare(calibration=4, evaluation=4))
    assert len(SampleFile(FILES.calibration_samples)) == len(SampleFile(FILES.evaluation_samples)) == 4
    inputs = SampleFile(FILES.evaluation_samples).batch(0)
    wanted = run_network(network, spec, inputs)
    check_outputs(spec, inputs, wanted)
    if task != "tensor":
        check_answers(spec, [data.postprocess(without_batch_axis(wanted, spec))])
    export_network(network, spec, Export(exporter="torchscript", opset=18), root / "export")
    found = run_session(open_session(root / "export/model.onnx"), inputs)
    assert all(found[name] == pytest.approx(wanted[name], abs=1e-4) for name in wanted)


@pytest.mark.parametrize("task", TASKS)
def test_the_weights_that_nobody_trained_are_the_same_every_time(task):
    write_model("mine", task)
    first, second = (load_network("mine", Path("raw")).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_task_has_the_variants_that_make_sense_and_a_budget():
    for task in TASKS:
        write_model(task, task)
        spec = load_spec(task)
        assert spec.task == task
        assert ("int8_dynamic" in spec.variants) == (task == "embedding")  # the one of matrix products alone
        assert spec.budget is not None


def test_photographs_stand_in_for_data_py_and_their_folders_are_counted(root, photographs):
    write_model("pets", "classification", images=photographs)
    assert files(root / "models") == {"pets/spec.yaml", "pets/params.yaml", "pets/network.py"}
    pets = ModelFiles("pets")
    spec, raw = load_spec("pets"), pets.raw
    assert spec.outputs[0].shape == ["batch", 2]
    assert spec.images and spec.images.mean == [0.485, 0.456, 0.406]
    assert spec.sources[0].sha256 == tree_sha256(photographs)
    fetch_sources("pets", spec.sources, raw)
    write_splits(load_data("pets"), pets, spec, Prepare(calibration=2, evaluation=2))
    inputs = SampleFile(pets.evaluation_samples).batch(1)
    check_outputs(spec, inputs, run_network(load_network("pets", raw), spec, inputs))


def test_one_photograph_a_class_is_written_and_prepared_with_a_note(root):
    """The stage itself, on the spec as it is written: the split is fair, and the note is on standard error."""
    for label in range(6):
        (root / "birds" / f"{label}").mkdir(parents=True)
        Image.new("RGB", (300, 260), (40 * label, 0, 0)).save(root / "birds" / f"{label}/one.jpg")
    write_model("birds", "classification", images=root / "birds")
    fetch_sources("birds", load_spec("birds").sources, root / "data/raw/birds")
    birds = ModelFiles("birds")
    shutil.copy(ROOT / "params.yaml", root)
    write_params(birds, merge_params(birds), load_spec("birds"))
    result = run_here(root, "stages.prepare", "birds")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("note: INT8 is calibrated on 3 samples, and its ranges fit others only from 16 on")
    assert [len(SampleFile(path)) for path in (birds.calibration_samples, birds.evaluation_samples)] == [3, 3]


def test_an_official_split_is_written_and_prepared_as_it_is(root, photographs):
    for part in ("train", "valid"):
        shutil.copytree(photographs, root / "pets" / part)
    write_model("pets", "classification", images=root / "pets")
    assert "valid/ is evaluated on" in (root / "models/pets/spec.yaml").read_text()
    spec, pets = load_spec("pets"), ModelFiles("pets")
    assert spec.outputs[0].shape == ["batch", 2]
    fetch_sources("pets", spec.sources, pets.raw)
    write_splits(load_data("pets"), pets, spec, Prepare(calibration=160, evaluation=200))
    for path, part in ((pets.calibration_samples, "train"), (pets.evaluation_samples, "valid")):
        assert {group.split("/")[0] for group in SampleFile(path).groups} == {part}
        assert len(SampleFile(path)) == 6


def test_a_class_that_is_only_held_out_is_named_before_anything_is_written(root, photographs):
    shutil.copytree(photographs, root / "pets/train")
    shutil.copytree(photographs, root / "pets/val")
    (root / "pets/val/dogs").rename(root / "pets/val/wolves")
    with pytest.raises(DataError, match=r"has the folders wolves, which .*train does not have"):
        write_model("pets", "classification", images=root / "pets")
    assert not list((root / "models").iterdir())


def test_of_many_classes_the_first_are_shown(root):
    for label in range(30):
        (root / "many" / f"{label:02d}").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / "many" / f"{label:02d}/one.jpg")
    write_model("many", "classification", images=root / "many")
    assert '#   "00", "01", "02", "03", "04", ...\n' in (root / "models/many/spec.yaml").read_text()


def test_weights_are_declared_with_their_sum_and_loaded_strictly(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "my weights.pth"
    torch.save({"scale": torch.ones(1)}, elsewhere)
    write_model("mine", "tensor", weights=elsewhere)
    spec = load_spec("mine")
    assert spec.sources[0].sha256 == hashlib.sha256(elsewhere.read_bytes()).hexdigest()
    fetch_sources("mine", spec.sources[:1], root / "raw")
    with pytest.raises(CheckpointError, match=r"my weights\.pth does not fit .*\n  missing: layers\.0\.weight"):
        load_network("mine", root / "raw")
    fitting = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 3), torch.nn.PixelShuffle(2)
    )
    state = {f"layers.{name}": torch.full_like(value, 0.5) for name, value in fitting.state_dict().items()}
    torch.save(state, root / "raw/my weights.pth")
    assert all((value == 0.5).all() for value in load_network("mine", root / "raw").state_dict().values())


@pytest.mark.parametrize("name", ["my-net", "1st", "", "a/b", ".."])
def test_a_name_that_cannot_be_imported_is_refused(root, name):
    with pytest.raises(SpecError, match="cannot be a model's name"):
        write_model(name, "tensor")
    assert files(root) == {"models.yaml"}


def test_a_folder_that_is_there_is_refused_and_kept(root):
    (root / "models/mine").mkdir()
    (root / "models/mine/notes.txt").write_text("mine")
    with pytest.raises(SpecError, match="models/mine already exists"):
        write_model("mine", "tensor")
    assert files(root) == {"models.yaml", "models/mine/notes.txt"}
    assert (root / "models.yaml").read_text() == LISTED


def test_another_working_directory_than_the_repository_is_refused(root):
    (root / "models").rmdir()
    with pytest.raises(SpecError, match="run this from the repository root"):
        write_model("mine", "tensor")
    assert files(root) == {"models.yaml"}
    (root / "models").mkdir()
    (root / "models.yaml").unlink()
    with pytest.raises(ParameterError, match=r"^models\.yaml is not there: run this from the repository root"):
        write_model("mine", "tensor")
    assert files(root) == set()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"weights": "gone.pth"}, SourceError, r"there is no file gone\.pth"),
        ({"weights": "photographs"}, SourceError, "there is no file photographs"),
        ({"images": "gone"}, DataError, "there is no folder gone"),
        ({"images": "photographs/cats"}, DataError, "has 3 photographs without a class"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_written(root, photographs, options, error, says):
    before = files(root)
    paths = {key: photographs.parent.joinpath(value).relative_to(root) for key, value in options.items()}
    with pytest.raises(error, match=says):
        write_model("mine", "classification", **paths)
    assert files(root) == before
    assert (root / "models.yaml").read_text() == LISTED


def test_photographs_are_for_a_classification_alone(photographs):
    with pytest.raises(SpecError, match="the task is embedding"):
        write_model("mine", "embedding", images=photographs)


def test_what_would_be_no_spec_is_not_written(root, photographs):
    (root / "other").mkdir()
    (root / "other/photographs").write_bytes(b"weights of the same name")
    with pytest.raises(ReleaseError, match="two sources are called photographs"):
        write_model("mine", "classification", root / "other/photographs", photographs)
    assert not list((root / "models").iterdir())
    assert not (root / "metrics").exists() and (root / "models.yaml").read_text() == LISTED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LISTED, LISTED + "- mine\n"),
        ("models:\n  - net\n  - other", "models:\n  - net\n  - other\n  - mine\n"),
        ("models:\n", "models:\n- mine\n"),
        ("models:  # - none\n- mine\n- net\n", "models:  # - none\n- mine\n- net\n"),  # a person has listed it
    ],
)
def test_a_line_is_added_to_the_list_and_all_else_in_it_stays(root, before, after):
    (root / "models.yaml").write_text(before)
    write_model("mine", "tensor")
    assert (root / "models.yaml").read_text() == after
    assert "mine" in read_list()


def test_a_name_that_is_the_beginning_of_another_s_is_another_model(root):
    for name in ("net_v2", "ne", "ne_"):
        write_model(name, "tensor")
    assert read_list() == ["net", "net_v2", "ne", "ne_"]


@pytest.mark.parametrize("before", ["models: []\n", "models: [net, other]\n"])
def test_a_list_that_takes_no_line_is_named_and_what_the_message_says_works(root, before):
    (root / "models.yaml").write_text(before)
    with pytest.raises(ParameterError) as caught:
        write_model("mine", "tensor")
    assert files(root) == {"models.yaml"} and (root / "models.yaml").read_text() == before
    says, _, fix = str(caught.value).partition("\n")
    assert says == "models.yaml takes no line for mine: write the list with one name a line,"
    (root / "models.yaml").write_text(fix)
    write_model("mine", "tensor")
    assert read_list()[-1] == "mine"


@pytest.mark.parametrize("fails", ["pipelines/mine/dvc.yaml", "models.yaml"])
@pytest.mark.parametrize("measured", [False, True])
def test_what_cannot_be_written_whole_leaves_nothing_behind(root, monkeypatch, fails, measured):
    if measured:  # what an earlier model of the name has left
        write_text(root / "metrics/mine/export.json", "{}")
    before = files(root)

    def refuse(path, text):
        if path == Path(fails):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_text(path, text)

    monkeypatch.setattr(new_model, "write_text", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_model("mine", "tensor")
    assert files(root) == before and (root / "models.yaml").read_text() == LISTED
    assert [path.name for path in (root / "models").iterdir()] == []
    assert (root / "metrics").exists() == measured


@pytest.mark.parametrize("path", sorted(ROOT.glob("pipelines/*/dvc.yaml")), ids=lambda path: path.parent.name)
def test_the_stages_of_every_model_are_those_that_are_written_for_a_new_one(path):
    assert path.read_text() == pipeline_text(path.parent.name), "run `python -m tools.pipelines`"


def test_the_stages_of_all_on_the_list_and_of_those_that_have_some_are_written_again(root):
    write_text(root / "models.yaml", "models:\n- one\n- two\n")
    write_text(root / "pipelines/one/dvc.yaml", "stages: {}\n")
    write_text(root / "pipelines/off/dvc.yaml", "stages: {}\n")
    write_pipelines(Namespace())
    for name in ("one", "two", "off"):
        assert (root / f"pipelines/{name}/dvc.yaml").read_text() == pipeline_text(name)


def test_the_parameters_of_a_new_model_are_those_of_all_and_may_be_its_own(root):
    shutil.copy(ROOT / "params.yaml", root)
    write_model("mine", "tensor")
    assert merge_params(FILES) == load_defaults()
    (root / "models/mine/params.yaml").write_text("export: {opset: 20}\n")
    assert merge_params(FILES).export.opset == 20


def test_names_that_mean_something_to_yaml_are_kept(root, photographs):
    (photographs / "cats").rename(photographs / "yes: #1")
    shutil.move(photographs, root / "a: b #c")
    write_model("mine", "classification", images=root / "a: b #c")
    images = load_spec("mine").images
    assert images and images.folder == "a: b #c"


def test_the_command_says_what_to_do_next(root, photographs):
    arguments = ["mine", "--task", "classification", "--images", "photographs"]
    result = run_here(root, "tools.new_model", *arguments)
    assert result.returncode == 0, result.stderr
    assert "models/mine/network.py" in result.stdout and "data.py" not in result.stdout
    assert "make repro MODEL=mine" in result.stdout
    assert result.stdout.startswith("models/mine/ runs as it is, and models.yaml lists it. Change the places")
    again = run_here(root, "tools.new_model", *arguments)
    assert (again.returncode, again.stderr.partition(":")[0]) == (1, "error")


def test_pixels_of_the_generated_data_are_in_range():
    write_model("mine", "classification")
    assert np.array_equal(load_data("mine").preprocess(np.full((8, 8), 16.0))["image"], np.ones((1, 8, 8), np.float32))


def test_a_model_may_have_the_name_of_a_package_below_another_folder_called_models(root, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("onnxruntime")
    write_text(other / "models/bert/__init__.py", "")
    monkeypatch.syspath_prepend(other)
    write_model("bert", "tensor")
    assert load_data("bert").preprocess(np.ones((8, 8)))["image"].shape == (1, 8, 8)


NETWORKS = """
import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRUCell(3, 4)

    def forward(self, x, *, state):
        return {"state": self.layer(x, state), "nothing": None}


def recurrent():
    return Recurrent(), {"x": torch.randn(1, 3), "state": torch.zeros(1, 4)}


class Quarters(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 2, 4, stride=4), nn.ConvTranspose2d(2, 1, 4, stride=4)

    def forward(self, x):
        return x + self.up(self.down(x))


def two_inputs():
    return nn.Bilinear(3, 4, 5)


class Masked(nn.Module):
    def forward(self, x, mask):
        return (x + mask).softmax(-1)


def masked():
    return Masked(), {"x": torch.randn(2, 5), "mask": torch.tensor([[0, 0, 0, 0, -torch.inf]] * 2)}


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, edge_index):
        source, target = edge_index
        sent = self.layer(x)
        return torch.zeros_like(sent).index_add(0, target, sent[source])


def graph():
    return Graph(), (torch.randn(6, 3), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return self.layer(x).squeeze()


class Roots(nn.Module):
    def forward(self, x):
        return x.sqrt()


def roots():
    return Roots(), torch.tensor([[0.0, 0.0, 0.0, 9.0] * 4])


class Cached(nn.Module):
    def forward(self, x, past):
        keys = torch.cat([past, x], 1)
        return x + keys.mean(1, keepdim=True), keys


def cached():
    return Cached(), {"x": torch.randn(1, 1, 4), "past": torch.zeros(1, 0, 4)}


linear = nn.Linear(3, 2)
"""


@pytest.fixture
def own_networks(root, monkeypatch):
    """mynet.py in the repository's root, with networks that nobody has described."""
    (root / "mynet.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(root)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    yield root
    sys.modules.pop("mynet", None)


def run_as_written():
    """Take the model from its sources to an answer of its network, and return the spec and the outputs."""
    spec = load_spec("mine")
    fetch_sources("mine", spec.sources, FILES.raw)
    write_splits(load_data("mine"), FILES, spec, Prepare(calibration=4, evaluation=4))
    inputs = SampleFile(FILES.evaluation_samples).batch(0)
    outputs = run_network(load_network("mine", FILES.raw), spec, inputs)
    check_outputs(spec, inputs, outputs)
    return spec, outputs


def test_a_network_tells_its_inputs_by_name_its_outputs_by_path_and_its_sizes(own_networks):
    write_model("mine", None, network="mynet:recurrent")
    spec, outputs = run_as_written()
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in spec.inputs} == {
        "x": ("float32", ["batch", 3]),
        "state": ("float32", ["batch", 4]),
    }
    # An input has the name state already.
    assert [(tensor.name, tensor.shape) for tensor in spec.outputs] == [("state_out", ["batch", 4])]
    assert outputs["state_out"].shape == (1, 4)
    assert spec.variants == ["fp16", "int8_static"] and spec.sources == []


def test_a_mask_with_infinity_is_made_of_its_finite_values(own_networks):
    write_model("mine", None, network="mynet:masked")
    _, outputs = run_as_written()
    assert np.isfinite(*outputs.values()).all()


def test_an_example_with_an_empty_cache_gives_a_spec_whose_smallest_size_is_zero(own_networks):
    write_model("mine", None, network="mynet:cached")
    spec, _ = run_as_written()
    (past,) = (tensor for tensor in spec.inputs if tensor.name == "past")
    assert past.shape[0] == "batch" and spec.dimensions[past.shape[1]].min == 0


def test_nodes_of_a_graph_are_no_batch(own_networks):
    write_model("mine", None, network="mynet:graph")
    spec, outputs = run_as_written()
    assert spec.batch is None and list(spec.dimensions) == ["nodes", "edges"]
    assert [tensor.shape for tensor in spec.inputs] == [["nodes", 3], [2, "edges"]]
    assert outputs["output"].shape[1:] == (4,)


def test_the_code_of_a_network_in_one_file_is_copied_and_its_weights_are_the_same_every_time(own_networks):
    write_model("mine", None, network="mynet:Quarters")
    assert (own_networks / "models/mine/mynet.py").read_text() == NETWORKS
    (own_networks / "mynet.py").unlink()
    first, second = (load_network("mine", FILES.raw).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    spec, _ = run_as_written()
    assert spec.dimensions["height"].multiple_of == 4
    assert spec.outputs[0].shape == ["batch", 1, "height", "width"]
    file = own_networks / "models/mine/spec.yaml"
    text = file.read_text()
    apply_overrides(str(file), [])  # as `dvc exp run -S` does
    assert file.read_text() == text
    assert "# CHANGE: the example was guessed from the first layer" in text


def test_the_weights_that_are_given_are_loaded_and_those_that_the_function_reads_are_declared(own_networks):
    weights = own_networks / "weights.pth"
    torch.save({"weight": torch.full((2, 3), 2.0), "bias": torch.zeros(2)}, weights)
    write_model("mine", "tensor", weights, network="mynet:linear")
    run_as_written()
    assert (load_network("mine", FILES.raw).state_dict()["weight"] == 2).all()
    (own_networks / "mynet.py").write_text(
        "import torch\n\n\ndef build():\n    network = torch.nn.Linear(3, 2)\n"
        '    network.load_state_dict(torch.load("weights.pth"))\n    return network\n'
    )
    sys.modules.pop("mynet")
    write_model("reads", None, network="mynet:build")
    (source,) = load_spec("reads").sources
    assert (source.name, source.sha256) == ("weights.pth", hashlib.sha256(weights.read_bytes()).hexdigest())
    assert "CHANGE: it reads weights.pth from its own place" in (own_networks / "models/reads/network.py").read_text()


def test_examples_of_inputs_may_be_given_and_are_asked_for_where_they_cannot_be_guessed(own_networks):
    with pytest.raises(NetworkError, match=r"forward\(input1, input2\) are not known: give .*--input 'input1=float32"):
        write_model("mine", None, network="mynet:two_inputs")
    assert not list((own_networks / "models").iterdir())
    write_model("mine", None, network="mynet:two_inputs", inputs=["input1=float32[2,3]", "input2=float32[2, 4]"])
    spec, _ = run_as_written()
    assert [tensor.shape for tensor in spec.inputs] == [["batch", 3], ["batch", 4]]
    for text in ("input1=float33[2]", "input1", "input1=float32"):
        with pytest.raises(NetworkError, match="write it as in image=float32"):
            write_model("other", None, network="mynet:two_inputs", inputs=[text])


def test_a_folder_of_transformers_is_a_whole_model(root):
    import transformers  # or each process of the tests would, for a second

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"vocab_size": 30, "max_position_embeddings": 20, "num_labels": 3}
    config = transformers.BertConfig(**sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(root / "checkpoint")
    write_model("mine", None, network="transformers:checkpoint")
    assert not (root / "models/mine/network.py").exists()
    spec, _ = run_as_written()
    assert spec.transformers == "BertForSequenceClassification" and spec.task == "classification"
    assert [tensor.name for tensor in spec.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [(tensor.name, tensor.shape) for tensor in spec.outputs] == [("logits", ["batch", 3])]
    assert spec.dimensions["sequence"].max == 20 and "int8_dynamic" in spec.variants
    assert [source.name for source in spec.sources] == ["config.json", "model.safetensors"]


def test_archives_are_networks_of_their_own(root):
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 2))).save(str(root / "scripted.pt"))
    pooled = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(pooled, torch.zeros(1, 3, 8, 8)).save(str(root / "traced.pt"))
    write_model("traced", None, network="traced.pt")
    assert load_spec("traced").inputs[0].shape == ["batch", 3, 64, 64]
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.randn(4, 3),), dynamic_shapes=free)
    torch.export.save(program, root / "whole.pt2")
    for name, file, example in (("scripted", "scripted.pt", 2), ("whole", "whole.pt2", 4)):
        write_model(name, None, network=file)
        assert files(root / "models" / name) == {"spec.yaml", "params.yaml", "data.py"}
        spec = load_spec(name)
        assert (spec.inputs[0].shape, spec.outputs[0].shape) == (["batch", 3], ["batch", 2])
        assert spec.dimensions["batch"].example == example
        assert [(source.name, source.trusted_pickle) for source in spec.sources] == [(file, name == "whole")]
    torch.save({"weight": torch.zeros(2)}, root / "weights.pt")
    with pytest.raises(ReleaseError, match=r"weights\.pt is no archive .* give the network with --network MODULE"):
        write_model("other", None, network="weights.pt")


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("gone.pt", "there is no file gone.pt, and no colon in it"),
        ("nomodule:build", "the module nomodule cannot be imported"),
        ("mynet:gone", "mynet has no gone: name a function that returns the network"),
        ("mynet:nn", "mynet:nn gives module: let it return a torch.nn.Module"),
        ("timm:resnet18", "timm"),
    ],
)
def test_a_network_that_is_not_there_is_named_and_nothing_is_written(own_networks, monkeypatch, network, says):
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    with pytest.raises(NetworkError, match=says):
        write_model("mine", None, network=network)
    assert not list((own_networks / "models").iterdir())


@pytest.mark.parametrize(
    ("network", "says", "file", "change"),
    [
        ("Squeezed", "the network contradicts spec.yaml: output has the shape [4]", "mynet.py", (".squeeze()", "")),
        (
            "roots",
            "values of the output output are NaN in float32",
            "data.py",
            ("random.normal(", "10 + 0 * random.normal("),
        ),
    ],
)
def test_what_does_not_run_as_it_is_written_is_said_and_runs_once_it_is_changed(
    own_networks, network, says, file, change
):
    result = run_here(own_networks, "tools.new_model", "mine", "--network", f"mynet:{network}")
    assert (result.returncode, result.stdout) == (1, "")
    first, _, rest = result.stderr.partition("\n")
    assert first.startswith("error: models/mine/ is written, and models.yaml lists it, but it does not run: ")
    assert says in first and "Change that" in rest and "  models/mine/data.py " in rest
    assert "mine" in read_list() and FILES.pipeline.is_file()
    path = own_networks / "models/mine" / file
    path.write_text(path.read_text().replace(*change))
    run_as_written()


def test_an_example_whose_photographs_are_downloaded_is_not_said_to_run(root):
    result = run_here(root, "tools.new_model", "mine", "--task", "detection")
    assert result.returncode == 0, result.stderr
    assert "It has not been run, since the pipeline downloads china.jpg, flower.jpg." in result.stdout


def test_the_command_needs_a_network_or_a_task(own_networks):
    result = run_here(own_networks, "tools.new_model", "mine")
    assert (result.returncode, result.stderr.partition(",")[0]) == (1, "error: give --network")
    result = run_here(own_networks, "tools.new_model", "mine", "--network", "mynet:linear")
    assert result.returncode == 0, result.stderr
    assert "models/mine/spec.yaml   sizes, names, and what a variant may lose" in result.stdout
