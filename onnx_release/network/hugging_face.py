"""Load networks of the package transformers from a checkpoint folder of Hugging Face, with no code to write.

transformers is imported only if a spec names one of its classes.
"""

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError, NetworkError, SpecError
from onnx_release.core.plain_text import first_few_lines
from onnx_release.core.spec import Spec
from onnx_release.network.outputs import take_outputs
from onnx_release.network.safetensors_files import INDEX, WEIGHTS, read_index
from onnx_release.network.weight_names import misfits

CONFIG = "config.json"


def load_pretrained(name: str, spec: Spec, raw: Path) -> torch.nn.Module:
    """Load the class `name` of transformers from the checkpoint in `raw`, in float32, eval mode, wrapped by `by_name`.

    Only .safetensors files are read, and no code in the checkpoint is run. Raises CheckpointError if a file is missing
    or damaged, or if its weights are not exactly those of the network: transformers would invent missing ones and only
    warn. Raises SpecError and NetworkError as `pretrained_class` and `by_name` do.
    """
    pretrained = pretrained_class(name)
    check_checkpoint_files(raw)
    try:
        network, info = pretrained.from_pretrained(
            raw,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are listed below with the others
            output_loading_info=True,
        )
    except Exception as cause:  # transformers raises nearly anything on a damaged file or a strange config.json
        raise CheckpointError(f"{raw} does not load as {name}: {type(cause).__name__}: {cause}") from cause
    problems = misfits(*(sorted(info[f"{kind}_keys"]) for kind in ("missing", "unexpected", "mismatched")))
    if problems:
        raise CheckpointError(
            f"the weights in {raw} are not those of {name}:{first_few_lines(problems)}\n"
            "Under `transformers`, name the class that they were saved from (`architectures` in config.json), "
            "or write a network.py"
        )
    return by_name(network.eval(), [tensor.name for tensor in spec.inputs], [tensor.name for tensor in spec.outputs])


def pretrained_class(name: str) -> Any:
    """Return the class `name` of transformers, and turn the package's own output off. Raises SpecError without one."""
    try:
        import transformers
    except ImportError as cause:
        raise SpecError(f"spec.yaml: transformers: the package cannot be imported ({cause}): install it") from cause
    reports: Any = transformers.utils.logging
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    found = getattr(transformers, name, None)
    if not hasattr(found, "from_pretrained"):
        close = difflib.get_close_matches(name, dir(transformers), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SpecError(f"spec.yaml: transformers: the package has no network called {name}{hint}")
    return found


def check_checkpoint_files(raw: Path) -> None:
    """Raise CheckpointError unless `raw` has a configuration and all files of the weights."""
    index = raw / f"{WEIGHTS.removesuffix('.safetensors')}{INDEX}"
    weights = sorted(read_index(index)) if index.is_file() else [WEIGHTS]
    missing = [name for name in (CONFIG, *weights) if not (raw / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{raw} lacks {', '.join(missing)}: declare it under sources in the model's spec.yaml. A checkpoint of "
            f"transformers is {CONFIG} and {WEIGHTS}, or {CONFIG}, {index.name} and the files that it lists"
        )


def by_name(network: Any, inputs: Sequence[str], outputs: Sequence[str]) -> torch.nn.Module:
    """Wrap `network` in a module that takes `inputs` by position and returns `outputs` as a tuple, in these orders.

    Raises NetworkError for an input that the network does not know, which transformers would silently drop, and in a
    run for an output that it does not return.
    """
    accepted = [
        parameter.name
        for parameter in inspect.signature(network.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    unknown = [name for name in inputs if name not in accepted]
    if unknown:
        raise NetworkError(
            f"{type(network).__name__} has no input {', '.join(unknown)}, which spec.yaml declares; "
            f"it takes {', '.join(accepted)}"
        )

    class ByName(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            result = self.network(**dict(zip(inputs, tensors, strict=True)), return_dict=True)
            return take_outputs(result, outputs, type(self.network).__name__)

    # torch.export and its messages use the names of forward's parameters, and *tensors has none.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *inputs)]
    ByName.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return ByName().eval()
