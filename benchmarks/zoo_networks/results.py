"""Keep what the zoo found: a line of JSON for each network, written as soon as it is through."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path("benchmarks/zoo.jsonl")
FLOAT = "fp32"
REDUCED = ("fp16", "int8_dynamic", "int8_static")


@dataclass(frozen=True)
class Outcome:
    """One variant: whether it was made and passed, its sqnr_db, and the failure, empty if it passed."""

    made: bool
    passed: bool
    sqnr_db: float | None
    failure: str


@dataclass(frozen=True)
class Result:
    """What became of one network.

    `dynamo` and `torchscript` are empty if torch.onnx.export alone converts it rightly, else what is wrong. `stopped`
    is the stage that stopped the run and its message, or empty. `rival_db` is the sqnr_db of onnxruntime's own static
    quantizer where int8_static does not pass; None where it was not run or failed, which `rival_failure` says.
    """

    name: str
    family: str
    dynamo: str
    torchscript: str
    stopped: str = ""
    exporter: str = ""
    variants: dict[str, Outcome] = field(default_factory=dict)
    rival_db: float | None = None
    rival_failure: str = ""
    seconds: float = 0.0

    @property
    def convertible(self) -> bool:
        """Return whether either exporter alone converts the network rightly."""
        return not (self.dynamo and self.torchscript)

    def passes(self, variant: str) -> bool:
        """Return whether the variant was validated and passed."""
        return variant in self.variants and self.variants[variant].passed

    def excused(self) -> bool:
        """Return whether int8_static passes, or onnxruntime's own quantizer fails too or is more than 1 dB worse."""
        ours = self.variants.get("int8_static")
        if ours is None or not ours.made:
            return bool(ours and self.rival_failure)
        if ours.passed or self.rival_failure:
            return True
        return None not in (self.rival_db, ours.sqnr_db) and self.rival_db < ours.sqnr_db - 1  # type: ignore[operator]


def read_results(path: Path) -> dict[str, Result]:
    """Return the results in a file by name; the last line of a name counts. A file that is not there has none."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text().splitlines():
        content = json.loads(line)
        content["variants"] = {name: Outcome(**outcome) for name, outcome in content["variants"].items()}
        found[content["name"]] = Result(**content)
    return found


def add_result(path: Path, result: Result) -> None:
    """Add the line of a result."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def write_results(path: Path, results: dict[str, Result]) -> None:
    """Write a line for each result, by name: older lines of a name are gone."""
    path.write_text("".join(json.dumps(asdict(results[name])) + "\n" for name in sorted(results)))
