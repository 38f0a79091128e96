"""Run models on the kernels that ONNX Runtime has for CPUs with AVX2 and no VNNI, whatever the CPU at hand has.

valgrind emulates such a CPU, slowly, on any x86-64 host.
"""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

AVAILABLE = platform.machine() in ("x86_64", "AMD64") and shutil.which("valgrind") is not None
# Nothing but numpy and onnxruntime is imported in there: every import takes its time.
RUNNER = """
import json, sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
feeds, found, sessions = numpy.load("feeds.npz"), {}, {}
for index, path in enumerate(json.load(open("models.json"))):
    if path not in sessions:
        sessions[path] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = {value.name: feeds[f"{index}/{value.name}"] for value in sessions[path].get_inputs()}
    names = [value.name for value in sessions[path].get_outputs()]
    found |= {f"{index}/{name}": array for name, array in zip(names, sessions[path].run(names, taken))}
numpy.savez("found.npz", **found)
"""


def outputs_on_avx2(cases: Sequence[tuple[Path, Mapping[str, np.ndarray]]]) -> list[dict[str, np.ndarray]]:
    """The outputs of a model for an input, by name, for every case. Raises CalledProcessError if a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"{index}/{name}": array for index, (_, feed) in enumerate(cases) for name, array in feed.items()}
        np.savez(Path(folder) / "feeds.npz", allow_pickle=False, **arrays)
        (Path(folder) / "models.json").write_text(json.dumps([str(path.resolve()) for path, _ in cases]))
        command = ["valgrind", "-q", "--tool=none", sys.executable, "-c", RUNNER]
        subprocess.run(command, cwd=folder, check=True)
        found: list[dict[str, np.ndarray]] = [{} for _ in cases]
        for key, array in np.load(Path(folder) / "found.npz").items():
            index, _, name = key.partition("/")
            found[int(index)][name] = array
    return found
