"""Open a folder of Hugging Face as a network with example inputs, which its configuration tells."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError, NetworkError
from onnx_release.network.example_arguments import Arguments, name_arguments
from onnx_release.network.hugging_face import CONFIG, open_pretrained
from onnx_release.network.safetensors_files import INDEX, WEIGHTS, read_index

LENGTH = 16  # tokens in an example
SAMPLES = 16_000  # of a wave: one second
TASKS = ("ForImageClassification", "ForSequenceClassification", "ForAudioClassification")
PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network of transformers, its example inputs, its class, the files to declare, and its task if that is known."""

    network: torch.nn.Module
    arguments: Arguments
    name: str
    files: tuple[Path, ...]
    task: str


def open_folder(folder: Path, examples: Mapping[str, torch.Tensor]) -> PretrainedNetwork:
    """Load the network of a checkpoint folder, with `examples` or inputs that its configuration tells.

    Raises CheckpointError as `open_pretrained` does, and NetworkError if its inputs are not known.
    """
    name = architecture(folder)
    network = open_pretrained(name, folder)
    index = folder / f"{WEIGHTS.removesuffix('.safetensors')}{INDEX}"
    weights = [index.name, *sorted(read_index(index))] if index.is_file() else [WEIGHTS]
    files = tuple(folder / file for file in (CONFIG, *weights))
    task = "classification" if name.endswith(TASKS) else ""
    inputs = examples or known_inputs(network, read_json_file(folder / PREPROCESSOR))
    return PretrainedNetwork(network, name_arguments(network, inputs), name, files, task)


def architecture(folder: Path) -> str:
    """Return the class that the checkpoint was saved from. Raises CheckpointError without a configuration."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}: give the folder of a checkpoint of transformers")
    names = read_json_file(folder / CONFIG).get("architectures") or ["AutoModel"]
    return str(names[0])


def read_json_file(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; nothing if it is not there. Raises CheckpointError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as cause:
        raise CheckpointError(f"{path} is damaged: {cause}") from cause
    return content if isinstance(content, dict) else {}


def known_inputs(network: Any, preprocessor: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the first of the likely sets of inputs with which the network runs. Raises NetworkError without one."""
    failure: Exception = ValueError("it names no inputs")
    for inputs in likely_inputs(network, preprocessor):
        try:
            with torch.inference_mode():
                network(**{name: tensor.clone() for name, tensor in inputs.items()}, return_dict=True)
        except Exception as cause:  # a network raises anything on inputs that it does not take
            failure = cause
        else:
            return inputs
    taken = ", ".join(inspect.signature(network.forward).parameters)
    raise NetworkError(
        f"the inputs of {type(network).__name__} are not known ({type(failure).__name__}: {failure}): give an "
        f"example of each with --input NAME=DTYPE[SIZE,SIZE...]; it takes {taken}"
    )


def likely_inputs(network: Any, preprocessor: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield sets of inputs: the main one and what goes with it, then more, then all that are known."""
    known = {name: tensor for name, tensor in example_inputs(network, preprocessor).items() if takes(network, name)}
    main = network.main_input_name
    beside = ("attention_mask", "token_type_ids") if main == "input_ids" else ()
    decoder = ("decoder_input_ids",) if network.config.is_encoder_decoder else ()
    for names in (
        (main, *beside),
        (main, *beside, *decoder),
        ("input_ids", "attention_mask", "pixel_values"),
        (*known,),
    ):
        chosen = {name: known[name] for name in names if name in known}
        if chosen and (not decoder or set(decoder) & set(chosen) or names == (*known,)):
            yield chosen
    yield {name: tensor for name, tensor in network.dummy_inputs.items() if takes(network, name)}


def takes(network: Any, name: str) -> bool:
    """Return whether forward() has a parameter of that name."""
    return name in inspect.signature(network.forward).parameters


def example_inputs(network: Any, preprocessor: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return an example of every input that the configuration tells, with a batch of 2."""
    config = network.config
    generator = torch.Generator().manual_seed(0)
    ids = token_ids(setting(config, "vocab_size", 2), generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, : LENGTH // 2]}
    if setting(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    height, width = picture_size(config, preprocessor)
    channels = setting(config, "num_channels", 3)
    frames = (setting(config, "num_frames", 0),) if setting(config, "num_frames", 0) else ()
    inputs["pixel_values"] = torch.randn(2, *frames, channels, height, width, generator=generator)
    inputs["input_values"] = torch.randn(2, SAMPLES, generator=generator)
    if (
        setting(config, "num_mel_bins", 0)
        and setting(config, "max_length", 0)
        and network.main_input_name == "input_values"
    ):
        shape = (config.max_length, config.num_mel_bins)  # of spectrograms, as AST takes them
        inputs["input_values"] = torch.randn(2, *shape, generator=generator)
    features = setting(config, "num_mel_bins", setting(config, "feature_size", preprocessor.get("feature_size", 80)))
    length = 2 * setting(config, "max_source_positions", 50)
    inputs["input_features"] = torch.randn(2, features, length, generator=generator)
    return inputs


def token_ids(vocabulary: int, generator: torch.Generator) -> torch.Tensor:
    """Return token ids [2, LENGTH] over the whole vocabulary but its first ids, which are often padding and marks."""
    lowest = min(4, vocabulary - 1)
    return torch.randint(lowest, vocabulary, (2, LENGTH), generator=generator)


def setting(config: Any, name: str, default: int) -> int:
    """Return a number of the configuration, or of those of the parts in it; the default without one."""
    parts = [config, *(getattr(config, part, None) for part in ("text_config", "vision_config", "encoder", "decoder"))]
    found = (getattr(part, name, None) for part in parts)
    return next((value for value in found if isinstance(value, int)), default)


def picture_size(config: Any, preprocessor: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width of pictures, of the configuration or of the preprocessor's; 224 without either."""
    own = [getattr(part, "image_size", None) for part in (config, getattr(config, "vision_config", None))]
    sizes = [*own, preprocessor.get("crop_size"), preprocessor.get("size")]
    for size in sizes:
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return int(size[0]), int(size[1])
        if isinstance(size, Mapping):
            height = size.get("height") or size.get("shortest_edge")
            if height:
                return int(height), int(size.get("width") or height)
    return 224, 224
