"""Weights load strictly, and nothing in a file is run unless the model's spec trusts that file."""

import ast
import json
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from onnx_release.core.errors import CheckpointError
from onnx_release.core.files import sha256
from onnx_release.data.checksums import tree_sha256
from onnx_release.network.checkpoint import load_checkpoint, read_checkpoint
from tests.imports import ROOT

PICKLES = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")


@pytest.fixture
def network():
    return torch.nn.Linear(2, 3)


def expect(network, path, message):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_state_dict_loads(network, tmp_path):
    torch.save({"weight": torch.full((3, 2), 2.0), "bias": torch.zeros(3)}, tmp_path / "w.pth")
    load_checkpoint(network, tmp_path / "w.pth")
    assert network(torch.ones(1, 2)).tolist() == [[4.0, 4.0, 4.0]]


def test_missing_and_unknown_names_are_listed(network, tmp_path):
    torch.save({"weight": torch.zeros(3, 2), "scale": torch.zeros(3)}, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", r"missing: bias\n  not in the network: scale")


def test_another_shape_is_named(network, tmp_path):
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", r"weight has the shape \[2, 3\], the network's \[3, 2\]")


def test_a_long_list_is_cut(network, tmp_path):
    torch.save({f"w{i}": torch.zeros(1) for i in range(30)}, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", "and 22 more")


def test_ten_problems_are_shown_in_full(network, tmp_path):
    torch.save({f"w{i}": torch.zeros(1) for i in range(8)}, tmp_path / "w.pth")  # and the network's two are missing
    expect(network, tmp_path / "w.pth", r"not in the network: w7\Z")


def test_buffers_are_loaded_too(tmp_path):
    saved, network = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    saved.running_mean = torch.tensor([3.0, 4.0])
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    load_checkpoint(network, tmp_path / "w.pth")
    assert network.state_dict()["running_mean"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(3)], 5])
def test_a_file_that_holds_no_state_dict_says_what_it_holds(network, tmp_path, value):
    torch.save(value, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", f"contains a {type(value).__name__}, not a state dict")


def test_a_file_cut_anywhere_is_no_checkpoint(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(whole), 61):
        (tmp_path / "w.pth").write_bytes(whole[:length])
        expect(
            network, tmp_path / "w.pth", "w.pth is truncated or not a checkpoint|w.pth is not a plain file of weights"
        )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_refused(network, tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    expect(network, tmp_path / "w.pth", "truncated or not a checkpoint|not a plain file of weights")


def test_a_missing_file_is_named(network, tmp_path):
    expect(network, tmp_path / "gone.pth", r"gone\.pth is not there: declare it under sources")


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_not_run(network, tmp_path, zipped):
    content = {"weight": RunsCode(tmp_path / "ran")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    expect(network, tmp_path / "w.pth", "not a plain file of weights.*Unsupported global")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # it would have
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_not_run_either(network, tmp_path, protocol):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(RunsCode(tmp_path / "ran"), protocol))
    expect(
        network, tmp_path / "w.pth", r"w\.pth is not a plain file of weights|w\.pth is truncated or not a checkpoint"
    )
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Put a file to data/raw/net as the source ckpt.pt, which the spec of models/net trusts or not; gives its path."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data/raw/net"
    raw.mkdir(parents=True)
    (tmp_path / "models/net").mkdir(parents=True)

    def put(content, trusted):
        torch.save(content, raw / "ckpt.pt")
        source = {"name": "ckpt.pt", "sha256": sha256(raw / "ckpt.pt"), "from": {"path": "ckpt.pt"}, **trusted}
        spec = YAML(typ="safe").load((ROOT / "models/digits_cnn/spec.yaml").read_text())
        with (tmp_path / "models/net/spec.yaml").open("w") as file:
            YAML().dump({**spec, "sources": [source]}, file)
        return Path("data/raw/net/ckpt.pt")

    return put


TRUSTED = {"trusted_pickle": True}


@pytest.mark.parametrize("trusted", [{}, {"trusted_pickle": False}])
def test_what_needs_more_than_tensors_asks_for_a_key_and_says_what_it_does(network, fetched, tmp_path, trusted):
    path = fetched({**network.state_dict(), "more": RunsCode(tmp_path / "ran")}, trusted)
    message = r"was not loaded .*loading could run code.*`trusted_pickle: true` beside its sha256.* runs the code"
    expect(network, path, message)
    assert not (tmp_path / "ran").exists()


def test_with_the_key_its_code_runs(fetched, tmp_path):
    path = fetched({"more": RunsCode(tmp_path / "ran"), "state_dict": {"weight": torch.ones(3)}}, TRUSTED)
    assert read_checkpoint(path)["state_dict"]["weight"].tolist() == [1, 1, 1]
    assert (tmp_path / "ran").exists()


def test_the_key_trusts_no_other_file_than_that_of_the_sha256(network, fetched, tmp_path):
    path = fetched({"more": 1}, TRUSTED)
    torch.save({"weight": RunsCode(tmp_path / "ran")}, path)
    expect(network, path, r"was not loaded: `trusted_pickle` is for ckpt\.pt with the sha256 .*dvc checkout")
    path = path.rename(path.with_name("other.pt"))
    expect(network, path, "not a plain file of weights")
    path = path.rename(tmp_path / "ckpt.pt")
    expect(network, path, "not a plain file of weights")
    assert not (tmp_path / "ran").exists()


def test_the_key_of_a_folder_trusts_the_files_in_it_as_long_as_none_has_changed(fetched, tmp_path):
    folder = fetched({}, TRUSTED)
    folder.unlink()
    folder.mkdir()
    torch.save({"weight": RunsCode(tmp_path / "ran")}, folder / "a.pt")
    spec = tmp_path / "models/net/spec.yaml"
    spec.write_text(re.sub("sha256: .*", f"sha256: {tree_sha256(folder)}", spec.read_text()))
    (folder / "b.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="was not loaded"):
        read_checkpoint(folder / "a.pt")
    assert not (tmp_path / "ran").exists()
    (folder / "b.pt").rename(folder / ".a.pt").write_bytes((folder / "a.pt").read_bytes())
    with pytest.raises(CheckpointError, match="not a plain file of weights"):
        read_checkpoint(folder / ".a.pt")  # which the sha256 does not cover
    assert not (tmp_path / "ran").exists()
    read_checkpoint(folder / "a.pt")
    assert (tmp_path / "ran").exists()


def test_a_whole_network_needs_the_key_and_then_gives_its_weights(network, fetched):
    whole = torch.nn.Linear(2, 3)
    for trusted in ({}, TRUSTED):
        path = fetched({}, trusted)
        torch.save(whole, path)
        declare(path)
        if not trusted:
            expect(
                network, path, r"has a whole network, as torch\.save\(network.*could run code.*`trusted_pickle: true`"
            )
    load_checkpoint(network, path)
    assert torch.equal(network.weight, whole.weight)


def declare(path):
    """Put the sha256 of the file into the spec of models/net."""
    spec = Path("models/net/spec.yaml")
    spec.write_text(re.sub("sha256: .*", f"sha256: {sha256(path)}", spec.read_text()))


def test_an_onnx_file_is_called_so(network, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08")
    expect(network, tmp_path / "net.onnx", r"is an ONNX file, the result of an export: declare the PyTorch checkpoint")


def test_classes_that_are_not_here_are_named(network, fetched, monkeypatch):
    monkeypatch.setitem(sys.modules, "gone", types.ModuleType("gone"))
    monkeypatch.setattr(sys.modules["gone"], "Config", type("Config", (), {"__module__": "gone"}), raising=False)
    path = fetched({"config": sys.modules["gone"].Config()}, TRUSTED)
    monkeypatch.delitem(sys.modules, "gone")
    expect(network, path, "is trusted, but does not load .*No module named 'gone'.* must be importable")


def test_a_trusted_file_that_torch_did_not_write_says_what_can_be_read(network, fetched):
    path = fetched({}, TRUSTED)
    path.write_bytes(pickle.dumps({"weight": np.zeros((3, 2), np.float32)}, 4))
    spec = Path("models/net/spec.yaml")
    spec.write_text(re.sub("sha256: .*", f"sha256: {sha256(path)}", spec.read_text()))
    expect(network, path, r"is trusted, but does not load .*Only files of torch\.save")


def test_a_trusted_file_may_be_a_link_into_dvc_s_cache(fetched, tmp_path):
    path = fetched({"more": RunsCode(tmp_path / "ran")}, TRUSTED)
    cached = tmp_path / ".dvc/cache/files/md5/ab/cdef"
    cached.parent.mkdir(parents=True)
    path.symlink_to(path.rename(cached))
    read_checkpoint(path)
    assert (tmp_path / "ran").exists()


def calls(tree, name):
    """The keywords of every call of something that ends in `name`, such as torch.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def test_nothing_else_in_the_project_loads_a_pickle():
    listed = subprocess.check_output(["git", "ls-files", "*.py", ":!tests"], cwd=ROOT, text=True).splitlines()
    loads, archives, importing = [], [], set()
    for name in listed:
        tree = ast.parse((ROOT / name).read_text())
        loads += [(name, keywords) for keywords in calls(tree, "torch.load")]
        archives += [name for call in ("torch.jit.load", "torch.export.load") for _ in calls(tree, call)]
        for function in ("np.load", "np.lib.format.read_array"):
            assert all(keywords.get("allow_pickle", "False") == "False" for keywords in calls(tree, function)), name
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        if {module.partition(".")[0] for module in imported} & {*PICKLES}:
            importing.add(name)
    here = "onnx_release/network/checkpoint.py"
    assert loads == [(here, {"map_location": "'cpu'", "weights_only": "weights_only"})]
    assert archives == ["onnx_release/network/archives.py"] * 2  # which looks into them first
    assert importing == {here}  # for the name of an exception
    assert len(listed) > 100


def test_a_refusal_does_not_say_how_to_load_it_all_the_same(network, tmp_path):
    torch.save({"weight": RunsCode(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(network, tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value)
    assert "safe_globals" not in str(caught.value)


def test_what_is_not_a_tensor_is_named(network, tmp_path):
    torch.save({"weight": [1, 2], "bias": torch.zeros(3)}, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", "weight is a list, not a tensor")


def test_a_file_of_the_older_format_cut_anywhere_is_no_checkpoint(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(whole), 3):
        (tmp_path / "w.pth").write_bytes(whole[:length])
        expect(
            network, tmp_path / "w.pth", "w.pth is truncated or not a checkpoint|w.pth is not a plain file of weights"
        )


def save_shards(folder, **shards):
    """A checkpoint in several files as Hugging Face writes it; gives the path of its index."""
    weight_map: dict[str, str] = {}
    for name, tensors in shards.items():
        save_file(tensors, folder / f"{name}.safetensors")
        weight_map |= dict.fromkeys(tensors, f"{name}.safetensors")
    return save_index(folder, weight_map)


def save_index(folder, weight_map):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}))
    return path


def test_a_safetensors_file_loads(network, tmp_path):
    save_file({"weight": torch.full((3, 2), 2.0), "bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    load_checkpoint(network, tmp_path / "w.safetensors")
    assert network(torch.ones(1, 2)).tolist() == [[4.0, 4.0, 4.0]]


def test_what_has_been_loaded_does_not_change_with_the_file(network, tmp_path):
    save_file({"weight": torch.full((3, 2), 2.0), "bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    load_checkpoint(network, tmp_path / "w.safetensors")
    with (tmp_path / "w.safetensors").open("r+b") as file:
        file.write(bytes((tmp_path / "w.safetensors").stat().st_size))
    assert network(torch.ones(1, 2)).tolist() == [[4.0, 4.0, 4.0]]


def test_a_safetensors_file_is_loaded_as_strictly(network, tmp_path):
    save_file({"weight": torch.zeros(2, 3), "scale": torch.zeros(3)}, tmp_path / "w.safetensors")
    expect(
        network,
        tmp_path / "w.safetensors",
        r"w\.safetensors does not fit the network in network\.py:\n  missing: bias\n  not in the network: scale\n"
        r"  weight has the shape \[2, 3\], the network's \[3, 2\]\Z",
    )


def test_a_safetensors_file_cut_anywhere_is_no_checkpoint(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "w.safetensors").write_bytes(whole[:length])
        expect(network, tmp_path / "w.safetensors", r"w\.safetensors is truncated or not a checkpoint: fetch it again")


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.safetensors.index.json"])
def test_a_missing_safetensors_file_is_named(network, tmp_path, name):
    expect(network, tmp_path / name, f"{name} is not there: declare it under sources")


def test_a_pickle_called_safetensors_is_not_run(network, tmp_path):
    torch.save({"weight": RunsCode(tmp_path / "ran")}, tmp_path / "w.safetensors")
    expect(network, tmp_path / "w.safetensors", r"w\.safetensors is truncated or not a checkpoint")
    assert not (tmp_path / "ran").exists()


def test_weights_that_two_layers_share_are_in_the_file_once(tmp_path):
    embedding, linear = torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4, bias=False)
    linear.weight = embedding.weight
    network = torch.nn.Sequential(embedding, linear)
    save_file({"0.weight": torch.full((4, 3), 2.0)}, tmp_path / "w.safetensors")
    load_checkpoint(network, tmp_path / "w.safetensors")
    assert linear.weight.tolist() == [[2.0] * 3] * 4
    save_file({}, tmp_path / "w.safetensors")
    expect(network, tmp_path / "w.safetensors", r"missing: 0\.weight\n  missing: 1\.weight")


def test_a_checkpoint_in_several_files_loads(network, tmp_path):
    index = save_shards(tmp_path, a={"weight": torch.full((3, 2), 2.0)}, b={"bias": torch.ones(3)})
    load_checkpoint(network, index)
    assert network(torch.ones(1, 2)).tolist() == [[5.0, 5.0, 5.0]]


def test_one_file_of_several_is_not_taken_for_the_whole(network, tmp_path):
    save_shards(tmp_path, a={"weight": torch.zeros(3, 2)}, b={"bias": torch.zeros(3)})
    expect(network, tmp_path / "a.safetensors", "missing: bias")


def test_a_missing_file_of_several_is_named(network, tmp_path):
    index = save_shards(tmp_path, a={"weight": torch.zeros(3, 2)}, b={"bias": torch.zeros(3)})
    (tmp_path / "b.safetensors").unlink()
    expect(network, index, r"b\.safetensors is not there: declare it under sources")


def test_a_truncated_file_of_several_is_named(network, tmp_path):
    index = save_shards(tmp_path, a={"weight": torch.zeros(3, 2)}, b={"bias": torch.zeros(3)})
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes()[:-1])
    expect(network, index, r"b\.safetensors is truncated or not a checkpoint: fetch it again")


def test_files_that_hold_other_tensors_than_the_index_says_are_refused(network, tmp_path):
    save_shards(tmp_path, a={"weight": torch.zeros(3, 2), "bias": torch.ones(3)}, b={"bias": torch.zeros(3)})
    index = save_index(tmp_path, {"weight": "b.safetensors", "bias": "b.safetensors"})
    expect(network, index, r"do not belong together:\n  missing in b\.safetensors: weight\Z")
    # Two files with the same tensor: which of them counts must not depend on their order.
    index = save_index(tmp_path, {"weight": "a.safetensors", "bias": "b.safetensors"})
    expect(network, index, r"do not belong together:\n  in a\.safetensors and not in the index: bias\Z")


def test_several_files_are_loaded_as_strictly(network, tmp_path):
    index = save_shards(tmp_path, a={"weight": torch.zeros(2, 3)}, b={"scale": torch.zeros(3)})
    expect(network, index, r"missing: bias\n  not in the network: scale\n  weight has the shape \[2, 3\]")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"weight": 1}}', '{"weight_map": ["weight"]}']
)
def test_what_is_no_index_is_refused(network, tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    expect(network, tmp_path / "model.safetensors.index.json", "index.json is damaged or not the index of a checkpoint")


def test_an_index_does_not_lead_out_of_its_folder(network, tmp_path):
    (tmp_path / "inside").mkdir()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    index = save_index(tmp_path / "inside", dict.fromkeys(("weight", "bias"), "../w.safetensors"))
    expect(network, index, r"'\.\./w\.safetensors' is not a plain file name")
