"""Compare the answers of an exported file with PyTorch's, on real inputs at the corners of the declared sizes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.errors import GraphError
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import FLOATS, Output, Spec, Tolerance, judged_outputs
from onnx_release.data.samples import SampleFile, sample_key, spread_evenly
from onnx_release.measure.case_names import case_names
from onnx_release.measure.numerics import (
    FLOAT32_ROUNDING,
    is_wrong,
    maximum,
    other_infinities,
    tolerance_needed,
    within_tolerance,
)
from onnx_release.runtime.session import open_session, run_session

MOST_SAMPLES = 16
# The share of whole numbers, as of an argmax, that may differ by a near tie.
TIES = 0.1


@dataclass
class OutputDifference:
    """How far one output is from PyTorch in float64, over all cases, and how far PyTorch in float32 is.

    `elements` and `unequal` count those of an output that is judged `by_share`, as whole numbers and truth values are.
    """

    by_share: bool = False
    error: float = 0.0
    rounding: float = 0.0
    largest: float = 0.0
    needed: float = 0.0
    elements: int = 0
    unequal: int = 0
    worst_case: str = ""
    worst_key: str = ""

    def add(
        self, key: str, case: str, float64: np.ndarray, float32: np.ndarray, found: np.ndarray, rtol: float
    ) -> None:
        """Count one case, whose values are finite where PyTorch's are, and else the same infinity."""
        finite = np.isfinite(float64) & np.isfinite(float32)
        float64, float32, found = float64[finite], float32[finite], found[finite]
        error = maximum(0.0, np.abs(found.astype(np.float64) - float64))
        if error > self.error or not self.worst_case:
            self.worst_case, self.worst_key = case, key
        self.error = max(self.error, error)
        self.rounding = maximum(self.rounding, np.abs(float32.astype(np.float64) - float64))
        self.largest = maximum(self.largest, np.abs(float64))
        self.needed = max(self.needed, tolerance_needed(float64, found, rtol))
        if self.by_share:
            self.elements += float32.size
            self.unequal += int((float32 != found).sum())

    def validates(self, allowed: Tolerance) -> bool:
        """Return whether it is within the tolerance of the spec, as the validation will find."""
        return within_tolerance(self.error, self.rounding, self.needed, allowed)

    @property
    def wrong(self) -> bool:
        """Return whether it is another answer, and not the same with other rounding."""
        if self.by_share:
            return self.unequal > TIES * self.elements
        return is_wrong(self.error, self.rounding, self.largest)

    def describe(self, name: str) -> str:
        """Describe the difference of the output `name`."""
        if self.by_share:
            return f"{name} has {self.unequal} of {self.elements} values other than PyTorch's, as in {self.worst_case}"
        rounding = max(self.rounding, FLOAT32_ROUNDING * self.largest)
        times = f": {self.error / rounding:.3g} times PyTorch's own rounding" if rounding else ""
        return f"{name} is off by {self.error:.3g} in the case {self.worst_case}{times}"


@dataclass(frozen=True)
class Agreement:
    """`wrong` says how the answers differ, and is empty if they are PyTorch's; `broken` if it is not only by numbers.

    `validates` says whether they are also within the tolerance of the spec, and `difference` how far off the output is
    that is not. `key` is that of the case or sample in which the first wrong output is the worst, or the first broken.
    """

    wrong: str = ""
    broken: bool = False
    validates: bool = False
    difference: str = ""
    key: str = ""


def compare_with_torch(path: Path, spec: Spec, files: ModelFiles, most_samples: int | None = MOST_SAMPLES) -> Agreement:
    """Run the file on every shape case and on the evaluation samples of `files`, and compare with the references.

    Of more samples than `most_samples`, it takes so many, spread evenly; None takes all. Outputs with `counts: false`
    may be anything.
    """
    session = open_session(path)
    differences = {tensor.name: OutputDifference(judged_by_share(tensor)) for tensor in judged_outputs(spec)}
    cases = ArrayFile(files.reference_cases)
    runs = [(name, f"the case {name}", cases) for name in case_names(cases)]
    samples, answers = SampleFile(files.evaluation_samples), ArrayFile(files.reference_samples)
    used = spread_evenly(len(samples), most_samples or len(samples))
    runs += [(sample_key(index), f"sample {index}", answers) for index in used]
    for key, shown, reference in runs:
        try:
            found = run_session(session, inputs_of(key, cases, samples))
        except GraphError as cause:
            return Agreement(f"in {shown} {cause}", broken=True, key=key)
        float32, float64 = reference.folder(f"{key}/float32"), reference.folder(f"{key}/float64")
        for name, difference in differences.items():
            problem = unlike(name, float32[name], found[name])
            if problem:
                return Agreement(f"in {shown} {problem}", broken=True, key=key)
            truth = float64[name] if float64[name].shape == float32[name].shape else float32[name]
            difference.add(key, shown, truth.astype(np.float64), float32[name], found[name], spec.tolerance.rtol)
    return sum_up(differences, spec)


def judged_by_share(tensor: Output) -> bool:
    """Return whether an output is judged by the share of its values that are equal, and not by the largest error.

    It is for whole numbers and truth values, where a near tie gives quite another one; `counts: true` keeps the error.
    """
    return tensor.dtype not in FLOATS and not tensor.counts


def inputs_of(key: str, cases: ArrayFile, samples: SampleFile) -> dict[str, np.ndarray]:
    """Return the inputs of a shape case, or those of a sample with its batch axis."""
    return cases.folder(f"{key}/inputs") if key in case_names(cases) else samples.batch(int(key))


def unlike(name: str, wanted: np.ndarray, found: np.ndarray) -> str:
    """Describe an output of another shape than PyTorch's, or with NaN or infinity elsewhere; else return nothing."""
    if wanted.shape != found.shape:
        return f"{name} has the shape {list(found.shape)} and in PyTorch {list(wanted.shape)}"
    bad = int((np.isfinite(wanted) & ~np.isfinite(found)).sum())
    if bad:
        return f"{bad} of the {found.size} values of {name} are NaN or infinite, where PyTorch's are finite"
    other = other_infinities(wanted, found)
    return f"of {name}, {other}" if other else ""


def sum_up(differences: dict[str, OutputDifference], spec: Spec) -> Agreement:
    """Return the agreement of all outputs that are judged."""
    wrong = {name: difference for name, difference in differences.items() if difference.wrong}
    beyond = [
        difference.describe(name)
        for name, difference in differences.items()
        if not difference.validates(spec.tolerance)
    ]
    return Agreement(
        "; ".join(difference.describe(name) for name, difference in wrong.items()),
        validates=not beyond,
        difference="; ".join(beyond),
        key=next((difference.worst_key for difference in wrong.values()), ""),
    )
