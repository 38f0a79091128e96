"""Compare three HTTP servers under the same application: this one, plain uvicorn, and granian.

    python -m benchmarks.serving_stacks                # about 8 minutes on 2 cores
    python -m benchmarks.serving_stacks --part attacks # or throughput

writes benchmarks/serving_stacks.json; a part that is not run stays as it was. All three run serving/app.py with the
same release and the same engine in one worker; they differ only in who speaks HTTP. uvicorn and granian get every
setting of theirs that limits a client.

- Throughput: requests a second with wrk on 8 connections, for photographs as a form and as a binary tensor
  (mobilenet_v2), and for small binary tensors (digits_cnn), where HTTP is most of the work. The servers stay up, and
  take turns in random order within each round, so that what else the machine does meets all of them. `share` is the
  median of the ratios to this server in the same rounds, with a 95 % interval. `spread` is how much this server's own
  rate varies from round to round: the standard deviation by the mean. `cpu_ms` is the server's CPU time for a request,
  which other processes on the machine change less: while they take the cores, a server with more threads gets more of
  them, so its rate is higher at the same CPU time.
- Attacks: what a client sees that does to each server what benchmarks/stack_attacks.py lists.

Needs finished releases of mobilenet_v2 and digits_cnn (`make repro`), requirements-serving.txt, wrk, and granian in
the version that benchmarks/requirements-serving.txt names.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stack_attacks
from benchmarks.serving import SEED, WARM_UP, wrk
from models.mobilenet_v2 import data
from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import installed, machine_name
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.runtime.release import open_release
from onnx_release.timing.speedup import speedup_interval
from tools.server_process import HOST, READY, Running, ServerCommand, post, running, upload

RESULT = Path("benchmarks/serving_stacks.json")
ROOT = Path(__file__).parents[1]
APP = "benchmarks.serving_peers.release_app:app"
OURS = "this server"
PARTS = ("throughput", "attacks")


def main(arguments: argparse.Namespace) -> None:
    if installed("granian") is None:
        raise BenchmarkError("granian is not installed: pip install the version in benchmarks/requirements-serving.txt")
    photographs = list(data.encoded(ModelFiles("mobilenet_v2").raw))
    machine = machine_name(read_json(HARDWARE))
    result = read_json(RESULT) if RESULT.is_file() else {}
    if result.get("machine") != machine:
        result = {"machine": machine}  # measurements of another machine are not kept
    result["versions"] = {name: installed(name) for name in ("uvicorn", "granian")}
    parts = arguments.part or PARTS
    if "throughput" in parts:
        result["throughput"] = throughput(photographs, arguments.seconds, arguments.rounds)
        write_json(RESULT, result)
    if "attacks" in parts:
        result["attacks"] = {command.name: attack(command, photographs[0]) for command in stacks("mobilenet_v2")}
    write_json(RESULT, result)
    print(json.dumps(result, indent=2, ensure_ascii=False))


def throughput(photographs: list[bytes], seconds: int, rounds: int) -> dict[str, Any]:
    loads = {
        ("mobilenet_v2", "photographs"): [upload(photograph, True) for photograph in photographs],
        ("mobilenet_v2", "tensors of 602 kB"): [tensor_request("mobilenet_v2")],
        ("digits_cnn", "tensors of 256 bytes"): [tensor_request("digits_cnn")],
    }
    result: dict[str, Any] = {"seconds": seconds, "rounds": rounds, "loads": {}}
    for (model, load), requests in loads.items():
        result["loads"][load] = compare(stacks(model), requests, seconds, rounds)
    return result


def stacks(model: str) -> list[ServerCommand]:
    """Return the commands of the three servers, with limits as equal as their settings allow."""
    idle, receive, connections = stack_attacks.IDLE, stack_attacks.RECEIVE, stack_attacks.CONNECTIONS
    environment = {
        "PYTHONPATH": str(ROOT),
        "SERVING_IDLE": str(idle),
        "SERVING_RECEIVE": str(receive),
        "SERVING_CONNECTIONS": str(connections),
    }
    # -P leaves the release's own copy of serving/ out.
    python = (sys.executable, "-P", "-m")
    # fmt: off
    commands = {
        OURS: ("serving", "--port", "{port}"),
        "uvicorn": (
            "uvicorn", "--factory", APP, "--app-dir", str(ROOT), "--host", HOST, "--port", "{port}",
            "--loop", "uvloop", "--http", "httptools", "--ws", "none", "--log-level", "error", "--no-access-log",
            "--no-proxy-headers", "--no-server-header", "--backlog", "4096", "--limit-concurrency", str(connections),
            "--timeout-keep-alive", str(idle), "--timeout-graceful-shutdown", "30",
        ),
        "granian": (
            "granian", "--interface", "asgi", "--factory", APP, "--host", HOST, "--port", "{port}", "--http", "1",
            "--no-ws", "--loop", "uvloop", "--log-level", "error", "--backlog", "4096",
            "--backpressure", str(connections), "--http1-header-read-timeout", str(receive * 1000),
            "--http1-buffer-size", "65536", "--workers-kill-timeout", "30",
        ),
    }
    # fmt: on
    folder = ModelFiles(model).release.absolute()
    return [ServerCommand(name, (*python, *rest), folder, environment) for name, rest in commands.items()]


def tensor_request(model: str) -> bytes:
    """Return a whole request with one row of zeros as the model's input, in binary."""
    (tensor,) = open_release(ModelFiles(model).release).spec.inputs
    shape = [1 if isinstance(size, str) else size for size in tensor.shape]
    content = np.zeros(shape, tensor.dtype).tobytes()
    datatype = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}[str(np.dtype(tensor.dtype))]
    size = {"binary_data_size": len(content)}
    given = {"name": tensor.name, "shape": shape, "datatype": datatype, "parameters": size}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    request = post(f"/v2/models/{model}/infer", head + content, "application/octet-stream")
    return request.replace(b"\r\n", f"\r\nInference-Header-Content-Length: {len(head)}\r\n".encode(), 1)


def compare(commands: list[ServerCommand], requests: list[bytes], seconds: int, rounds: int) -> dict[str, Any]:
    """Measure requests a second of every server in every round; return their rates and shares."""
    order = random.Random(SEED)
    turns: dict[str, list[dict[str, float]]] = {command.name: [] for command in commands}
    with ExitStack() as stack:
        up = {command.name: stack.enter_context(running(command, requests[0])) for command in commands}
        for found in up.values():
            wrk(found.port, requests, WARM_UP)
        for _ in range(rounds):
            for name in order.sample(list(up), len(up)):
                turns[name].append(turn(up[name], requests, seconds))
    return {name: summary(found, turns[OURS]) for name, found in turns.items()}


def turn(found: Running, requests: list[bytes], seconds: int) -> dict[str, float]:
    before = cpu_seconds(found)
    load = wrk(found.port, requests, seconds)
    used = cpu_seconds(found) - before
    return {"rate": load["rate"], "errors": load["errors"], "cpu_ms": used * 1e3 / (load["rate"] * seconds)}


def cpu_seconds(found: Running) -> float:
    return sum(used.user + used.system for used in (process.cpu_times() for process in found.tree()))


def summary(found: list[dict[str, float]], ours: list[dict[str, float]]) -> Mapping[str, Any]:
    rates, base = [turn["rate"] for turn in found], [turn["rate"] for turn in ours]
    share, low, high = speedup_interval(rates, base, len(base), SEED)
    return {
        "rates": rates,
        "rate": float(np.median(rates)),
        **{"share": share, "low": low, "high": high},
        "spread": float(np.std(rates, ddof=1) / np.mean(rates)),
        "cpu_ms": float(np.median([turn["cpu_ms"] for turn in found])),
        "cpu_share": float(np.median([a["cpu_ms"] / b["cpu_ms"] for a, b in zip(found, ours, strict=True)])),
        "errors": int(sum(turn["errors"] for turn in found)),
    }


def attack(command: ServerCommand, photograph: bytes) -> dict[str, str]:
    """Return what came of each attack, each on a server that was just started."""
    found = {}
    for name, function in stack_attacks.ATTACKS.items():
        with running(command, READY) as server:
            found[name] = function(server)
    with running(command, READY) as server:
        found["clients that leave"] = stack_attacks.left(server, photograph)
        found["SIGTERM with 24 requests in flight"] = stack_attacks.drain(server, photograph)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this part (all)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of throughput (10)")
    parser.add_argument("--seconds", type=int, default=3, help="whole seconds of a turn (3)")
    run_tool(main, parser)
