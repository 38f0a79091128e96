"""Measure PyTorch's speed and page faults with and without keeping freed memory, as every contender's process does.

    python -m benchmarks.page_faults [--model NAME]

starts PyTorch eager on a model in STARTS fresh processes with glibc's defaults, and in as many with the settings of
onnx_release.timing.worker.KEEP_MEMORY, one after the other, and writes benchmarks/page_faults.json: for each start the
milliseconds, the page faults and the milliseconds in the kernel of a call, over CALLS calls. Only for Linux. Needs a
finished `make repro MODEL=NAME`. Takes less than a minute on 2 cores.
"""

import argparse
import json
import os
import resource
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import Runtime
from onnx_release.core.paths import HARDWARE, PAGE_FAULTS_BENCHMARK, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.timing.contenders import prepare, torch_contenders
from onnx_release.timing.worker import KEEP_MEMORY
from tools.models import add_model_option, chosen_model

STARTS, WARM_UP, CALLS = 6, 20, 100


def main(arguments: argparse.Namespace) -> None:
    files, hardware = chosen_model(arguments.model), read_json(HARDWARE)
    result = {
        "model": files.model,
        "machine": machine_name(hardware),
        "as_it_is": starts(files, {}, hardware["cores"]),
        "kept": starts(files, KEEP_MEMORY, hardware["cores"]),
    }
    write_json(PAGE_FAULTS_BENCHMARK, result)
    print(json.dumps(result, indent=2))


def starts(files: ModelFiles, environment: Mapping[str, str], threads: int) -> list[dict[str, float]]:
    """Return one entry for each start, the fastest first."""
    os.environ.update(environment)  # glibc reads it when a process starts
    try:
        return sorted((measure_process(files, threads) for _ in range(STARTS)), key=lambda found: found["ms"])
    finally:
        for name in environment:
            del os.environ[name]


def measure_process(files: ModelFiles, threads: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        return pool.submit(measure_calls, files, threads).result()


def measure_calls(files: ModelFiles, threads: int) -> dict[str, float]:
    """Measure milliseconds, page faults and milliseconds in the kernel of a call, in this process."""
    spec = load_spec(files.model)
    runtime = Runtime(provider="cpu", intra_threads=threads)
    (entry,) = torch_contenders(files.model, files.raw, spec, runtime, "cpu", ("torch_eager",))
    batch = real_batches(SampleFile(files.evaluation_samples), 1, spec, load_data(files.model))[0]
    call = prepare(entry)().call
    for _ in range(WARM_UP):
        call(batch)
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(CALLS):
        call(batch)
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": seconds * 1e3 / CALLS,
        "faults": (after.ru_minflt - before.ru_minflt) / CALLS,
        "kernel_ms": (after.ru_stime - before.ru_stime) * 1e3 / CALLS,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    run_tool(main, parser)
