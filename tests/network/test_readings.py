"""Weights are found in the wrappers that people save, where one reading fits, and a note says where."""

import re

import pytest
import torch
from torch import nn

from onnx_release.core.errors import CheckpointError
from onnx_release.network.checkpoint import load_checkpoint


def make(value=0.0):
    """A network of two layers, whose weights are all `value`."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for parameter in network.parameters():
        parameter.data.fill_(value)
    return network


def weights(prefix="", value=1.0):
    return {f"{prefix}{name}": tensor for name, tensor in make(value).state_dict().items()}


LAYOUTS = {
    "training": ({"state_dict": weights(), "optimizer": {"state": {0: {"step": 3}}}, "epoch": 3}, "'state_dict'"),
    "DataParallel": (weights("module."), "'module.'"),
    "torch.compile": (weights("_orig_mod."), "'_orig_mod.'"),
    "both": ({"model": weights("module._orig_mod.")}, "in the entry 'model', after the prefix 'module._orig_mod.'"),
    "Lightning": (
        {"state_dict": weights("model.") | {"loss.weight": torch.ones(2)}, "hyper_parameters": {"rate": 0.1}},
        "in the entry 'state_dict', after the prefix 'model.', without 1 other weights",
    ),
    "averaged": ({"n_averaged": torch.tensor(5)} | weights("module."), "after the prefix 'module.'"),
    "compiled layer": (
        {name.replace(".", "._orig_mod.", 1): value for name, value in weights().items()},
        "without the names of wrappers",
    ),
    "the same twice": ({"net": weights(), "copy": weights()}, "'net'"),
    "nested": ({"trainer": {"net": weights()}}, "'trainer.net'"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_in_the_layouts_that_people_save(layout, tmp_path, capsys):
    content, where = LAYOUTS[layout]
    torch.save(content, tmp_path / "w.pth")
    network = make()
    load_checkpoint(network, tmp_path / "w.pth")
    assert all((parameter == 1).all() for parameter in network.parameters())
    assert re.search(f"note: the weights of the network are in .*w.pth .*{re.escape(where)}", capsys.readouterr().err)


def test_a_plain_state_dict_needs_no_note(tmp_path, capsys):
    torch.save(weights(), tmp_path / "w.pth")
    load_checkpoint(make(), tmp_path / "w.pth")
    assert capsys.readouterr().err == ""


def test_of_two_that_fit_the_message_asks_which_and_key_says_it(tmp_path, capsys):
    torch.save({"params": weights("net."), "params_ema": weights("net.", value=2.0)}, tmp_path / "w.pth")
    network = make()
    with pytest.raises(CheckpointError, match=r"in 2 places\. .*\n.*key='params', prefix='net\.'\n.*key='params_ema'"):
        load_checkpoint(network, tmp_path / "w.pth")
    assert not network[0].weight.any()
    load_checkpoint(network, tmp_path / "w.pth", key="params_ema", prefix="net.")
    assert (network[0].weight == 2).all()
    load_checkpoint(network, tmp_path / "w.pth", key="params")
    assert (network[0].weight == 1).all()
    assert capsys.readouterr().err == ""
    with pytest.raises(CheckpointError, match=r"no entry 'ema' with weights; it has , params, params_ema"):
        load_checkpoint(network, tmp_path / "w.pth", key="ema")
    with pytest.raises(CheckpointError, match=r"after the prefix 'module\.'.* does not fit .*\n  missing: 0\.weight"):
        load_checkpoint(network, tmp_path / "w.pth", key="params", prefix="module.")


def test_the_nearest_reading_is_the_one_whose_problems_are_listed(tmp_path):
    content = weights("module.")
    content["module.0.bias"] = torch.zeros(4)
    torch.save({"state_dict": content}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(make(), tmp_path / "w.pth")
    assert str(caught.value).endswith(
        "w.pth, in the entry 'state_dict', after the prefix 'module.', does not fit the network in network.py:\n"
        "  0.bias has the shape [4], the network's [3]"
    )


def test_a_batch_norm_of_an_old_checkpoint_has_no_count(tmp_path):
    content = weights()
    del content["1.num_batches_tracked"]
    torch.save(content, tmp_path / "w.pth")
    load_checkpoint(make(), tmp_path / "w.pth")


def test_a_folder_of_hugging_face_has_its_weights_in_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file(weights(), tmp_path / "model.safetensors")
    network = make()
    load_checkpoint(network, tmp_path)
    assert (network[0].weight == 1).all()
