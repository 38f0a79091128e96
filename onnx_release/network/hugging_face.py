"""Networks of the transformers package, from a checkpoint folder as Hugging Face lays it out: no code to write.

transformers is imported only where a spec names one of its classes.
"""

import difflib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onnx_release.core.errors import CheckpointError, NetworkError, SpecError
from onnx_release.core.spec import Spec
from onnx_release.network.checkpoint import INDEX, listed

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def load_pretrained(name: str, spec: Spec, raw: Path) -> torch.nn.Module:
    """The class `name` of transformers with the checkpoint in `raw`, in float32 and eval mode, as `by_name` wraps it.

    Only .safetensors are read, and no code that comes with the checkpoint is run. Raises CheckpointError if a file
    is missing or damaged, or if its weights are not exactly those of the network: transformers would make up missing
    ones and only warn. Raises SpecError and NetworkError as `pretrained_class` and `by_name` do.
    """
    pretrained = pretrained_class(name)
    check_files(raw)
    try:
        network, info = pretrained.from_pretrained(
            raw,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are listed below, with the others
            output_loading_info=True,
        )
    except Exception as cause:  # transformers raises nearly anything on a damaged file or a strange config.json
        raise CheckpointError(f"{raw} does not load as {name}: {type(cause).__name__}: {cause}") from cause
    problems = [f"missing: {key}" for key in sorted(info["missing_keys"])]
    problems += [f"not in the network: {key}" for key in sorted(info["unexpected_keys"])]
    problems += [
        f"{key} has the shape {list(found)}, the network's {list(wanted)}"
        for key, found, wanted in sorted(info["mismatched_keys"])
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {raw} are not those of {name}:{listed(problems)}\n"
            "Name the class under `transformers` that they were saved from (`architectures` in config.json says it), "
            "or write a network.py"
        )
    return by_name(network.eval(), [tensor.name for tensor in spec.inputs], [tensor.name for tensor in spec.outputs])


def pretrained_class(name: str) -> Any:
    """The class `name` of transformers, whose own reports are off. Raises SpecError if there is none to load from."""
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


def check_files(raw: Path) -> None:
    """Raise CheckpointError unless `raw` holds a configuration, and weights with all the files that they are in."""
    wanted = [CONFIG]
    index = raw / f"{WEIGHTS.removesuffix('.safetensors')}{INDEX}"
    if not index.is_file():
        wanted.append(WEIGHTS)
    else:
        try:
            wanted += sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise CheckpointError(
                f"{index} is damaged or no index of a checkpoint ({cause!r}): fetch it again"
            ) from cause
    missing = [name for name in wanted if not (raw / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{raw} lacks {', '.join(missing)}: declare it under sources in the model's spec.yaml. A checkpoint of "
            f"transformers is {CONFIG} and {WEIGHTS}, or {index.name} and the files that it names"
        )


def by_name(network: Any, inputs: Sequence[str], outputs: Sequence[str]) -> torch.nn.Module:
    """`network` as a module that takes `inputs` by position and returns `outputs` as a tuple, each in that order.

    Raises NetworkError for an input that the network does not name, which transformers would drop without a word; and
    in a run for an output that it does not give.
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
            given = [name for name, value in result.items() if isinstance(value, torch.Tensor)]
            missing = [name for name in outputs if name not in given]
            if missing:
                raise NetworkError(
                    f"{type(self.network).__name__} has no output {', '.join(missing)}, which spec.yaml declares; "
                    f"it gives {', '.join(given)}"
                )
            return tuple(result[name] for name in outputs)

    # torch.export and its messages go by the names of forward's parameters, and *tensors has none.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *inputs)]
    ByName.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return ByName().eval()
