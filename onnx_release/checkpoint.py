"""Load weights without running what a file may hold, and without leaving one behind."""

import pickle
import warnings
from pathlib import Path

import torch

from onnx_release.errors import CheckpointError


def load_checkpoint(network: torch.nn.Module, path: Path) -> None:
    """Load the state dict in `path` into `network`, strictly and on the CPU.

    Raises CheckpointError if the file is missing, truncated, holds more than tensors (a pickle could run code and
    is never run), or if its names or shapes are not those of the network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unusual pickle protocol; the error says enough
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        # Not torch's whole message: it says how to load the file all the same.
        reason = str(cause).partition("WeightsUnpickler error:")[2].strip().partition(". Please")[0].partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a plain file of weights: it is damaged, or it holds Python objects whose loading could "
            f"run code, and was not loaded ({reason or 'no pickle of tensors'}). Save the weights alone, with "
            "torch.save(network.state_dict(), ...)"
        ) from cause
    except FileNotFoundError as cause:
        raise CheckpointError(f"{path} is not there: declare it under sources in the model's spec.yaml") from cause
    except Exception as cause:  # torch raises nearly anything on damaged bytes, IndexError and struct.error among it
        raise CheckpointError(f"{path} is truncated or no checkpoint: fetch it again. torch says: {cause}") from cause
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
    expected = network.state_dict()
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"not in the network: {name}" for name in state if name not in expected]
    for name, tensor in expected.items():
        value = state.get(name, tensor)
        if not isinstance(value, torch.Tensor):
            problems.append(f"{name} is a {type(value).__name__}, not a tensor")
        elif value.shape != tensor.shape:
            problems.append(f"{name} has the shape {list(value.shape)}, the network's {list(tensor.shape)}")
    if problems:
        shown = "\n  ".join(problems[:10]) + (f"\n  and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise CheckpointError(f"{path} does not fit the network in network.py:\n  {shown}")
    network.load_state_dict(state)
