"""Weights load strictly, and nothing in a file is ever run."""

from pathlib import Path

import pytest
import torch

from onnx_release.checkpoint import load_checkpoint
from onnx_release.errors import CheckpointError


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


def test_a_truncated_file_is_no_checkpoint(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-200])
    expect(network, tmp_path / "w.pth", "truncated or no checkpoint")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_refused(network, tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    expect(network, tmp_path / "w.pth", "truncated or no checkpoint|not a plain file of weights")


def test_a_missing_file_is_named(network, tmp_path):
    expect(network, tmp_path / "gone.pth", r"gone\.pth is not there: declare it under sources")


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_not_run(network, tmp_path):
    torch.save({"weight": RunsCode(tmp_path / "ran")}, tmp_path / "w.pth")
    expect(network, tmp_path / "w.pth", "not a plain file of weights.*Unsupported global")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # it would have
    assert (tmp_path / "ran").exists()
