"""Describe the doctor's findings, each with its line and its fix, and the network that they are about."""

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from onnx_release.core.params import Export
from onnx_release.core.spec import Spec, batch_dimension
from onnx_release.data.examples import examples_of
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import stack_items
from onnx_release.export.doctor.lines import build_line
from onnx_release.graph.source_lines import source_line
from onnx_release.network.example_inputs import example_inputs
from onnx_release.network.shape_cases import Sizes, case_name

PLACE = re.compile(r"[\w./-]+\.py:\d+")


@dataclass(frozen=True)
class Finding:
    """A mistake at FILE:LINE. An error makes the release wrong or impossible; a warning may be on purpose."""

    level: Literal["error", "warning"]
    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what}\n  fix: {self.fix}"


@dataclass(frozen=True)
class Patient:
    """The network to examine, with its spec and the exporter. `folder` is the model's, with build() and spec.yaml.

    `samples` are inputs of real samples, each without its batch axis. Without any, the network runs on random floats,
    and on ones elsewhere, which may be a mask that hides everything. What examples() of `data` gives replaces that.
    """

    network: torch.nn.Module
    spec: Spec
    params: Export
    folder: Path
    samples: Sequence[Mapping[str, np.ndarray]] = ()
    data: ModelData | None = None

    def inputs(self, sizes: Sizes) -> tuple[torch.Tensor, ...]:
        """Return inputs of these sizes for the network, from the samples if there are some.

        Raises DataError as `examples_of` does.
        """
        given = examples_of(self.data, self.spec, sizes)
        names = [tensor.name for tensor in self.spec.inputs]
        found = dict(zip(names, self.fitted_inputs(sizes), strict=True))
        return tuple(torch.from_numpy(given[name]) if name in given else found[name] for name in names)

    def fitted_inputs(self, sizes: Sizes) -> tuple[torch.Tensor, ...]:
        """Return the same without examples()."""
        if not self.samples:
            return example_inputs(self.spec, sizes)
        batch = batch_dimension(self.spec)
        count = sizes[batch] if isinstance(batch, str) else 1
        items = [self.samples[index % len(self.samples)] for index in range(count)]
        stacked = stack_items(items, sizes, self.spec)
        return tuple(torch.from_numpy(stacked[tensor.name]) for tensor in self.spec.inputs)

    def home(self) -> str:
        """Return the line for a finding that has no line of its own."""
        return build_line(self.folder)


def unexamined(patient: Patient, part: str, cause: BaseException) -> Finding:
    """Return the warning for a part of the examination that failed."""
    return Finding(
        "warning",
        f"{part} could not be examined: {type(cause).__name__}: {first_line(cause)}",
        patient.home(),
        "nothing, if the export and the validation pass: they check the file itself",
    )


def first_line(cause: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(cause).strip().splitlines() or [""])[0]


def place_in(cause: BaseException) -> str | None:
    """Return the first FILE:LINE in an error's message."""
    found = PLACE.search(str(cause))
    return found[0] if found else None


def failing_run(patient: Patient, sizes: Sizes, cause: BaseException) -> Finding:
    """Return the finding for a network that raises at sizes that the spec allows."""
    place = source_line("".join(traceback.format_exception(cause)))
    return Finding(
        "error",
        f"the network fails in PyTorch itself at {case_name(sizes)}: {type(cause).__name__}: {first_line(cause)}",
        f"{place[0]}:{place[1]}" if place else patient.home(),
        "make it run at every size that spec.yaml declares, by using x.shape and the dtypes of the inputs; "
        "or declare narrower bounds, or the size as a number",
    )
