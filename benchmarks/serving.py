"""Compare the server with the bare session and with three other servers, and measure it under too much load.

    python -m benchmarks.serving                       # all parts, about 45 minutes on 2 cores
    python -m benchmarks.serving --part throughput     # or latency, overload, start; may be given several times
    python -m benchmarks.serving --setting max_batch=1 --setting workers=2,threads=1

writes benchmarks/serving.json; a part that is not run stays as it was. All parts use mobilenet_v2, with the 20
evaluation photographs as uploads, in turn. Server and load share the machine's cores. The parts:

- throughput: uploads a second, with wrk on 8 connections. Each contender runs alone and is started again in every
  round, in random order. It is given as a share of the same round's `bare session`: one thread a core that decodes,
  preprocesses, runs a session of one thread and makes the answer, without HTTP. Plain FastAPI, LitServe and mosec get
  the same model.onnx and the same code for all these steps, for fp32 and for the released variant. Before a contender
  is timed, its answers to all photographs must equal those of the session. Each `--setting` of the server (fields of
  serving/settings.py) is another contender; the other parts measure the server with its defaults.
- latency: milliseconds from the time that a request was due, for 60 s at 80 % of the uploads a second that wrk reaches
  on the same process just before, with even and with random (Poisson) arrivals. Beside them stands what an ideal queue
  has, in which every request takes a thread the same time: some wait at random arrivals, however fast the server is.
- overload: minutes at twice the rate that wrk reaches: statuses, the share of the capacity that is still answered,
  milliseconds of both kinds of answers, resident memory each second, seconds until the server is ready and answers.
- start: seconds from `python -m serving` to the first 200 of /v2/health/ready, with and without the release's
  __pycache__.

Needs a finished `make repro MODEL=mobilenet_v2`, requirements-serving.txt, and wrk. The other servers are installed in
.venv-serving-peers on the first run (benchmarks/requirements-serving.txt).
"""

import argparse
import heapq
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.serving_load import FAILED, NO_ANSWER, NO_CONNECTION
from benchmarks.serving_page import LATENCIES, MODEL, PARTS, STARTS
from benchmarks.serving_peers.answer import answer, open_model
from models.mobilenet_v2 import data
from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.files import read_json, sha256, write_json
from onnx_release.core.hardware import available_cores, installed, machine_name
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.runtime.release import open_release
from onnx_release.timing.speedup import speedup_interval
from tools.server_process import HOST, READY, Running, ServerCommand, labels, running, upload

RESULT = Path("benchmarks/serving.json")
FILES = ModelFiles(MODEL)
REQUIREMENTS = Path("benchmarks/requirements-serving.txt")
PEERS = Path(".venv-serving-peers")
SCRIPT = Path("benchmarks/serving.lua")

BARE = "bare session"
CONNECTIONS = 8
WARM_UP = 3  # seconds of load before a server is timed; wrk takes only whole seconds
SEED = 7
LATENCY_SECONDS = 60
LATENCY_LOAD, OVERLOAD = 0.8, 2.0  # shares of the capacity
LOAD_CONNECTIONS = 1000


def main(arguments: argparse.Namespace) -> None:
    if not shutil.which("wrk"):
        raise BenchmarkError("wrk, which makes the load, is not installed: apt-get install wrk")
    if arguments.rounds < 2:
        raise BenchmarkError("--rounds must be 2 or more: a single round has no interval")
    released = open_release(FILES.release).manifest
    machine = machine_name(read_json(HARDWARE))
    result = read_json(RESULT) if RESULT.is_file() else {}
    if result.get("machine") != machine:
        result = {"machine": machine}  # measurements of another machine are not kept
    result["photographs"] = photographs_summary()
    parts = arguments.part or list(PARTS)
    if "throughput" in parts:
        settings = [{}, *arguments.setting]
        result["throughput"] = throughput(released.variant, settings, arguments.seconds, arguments.rounds)
        write_json(RESULT, result)
    if "latency" in parts:
        result["latency"] = latency(arguments.seconds)
        write_json(RESULT, result)
    if "overload" in parts:
        result["overload"] = overload(arguments.seconds, arguments.minutes)
        write_json(RESULT, result)
    if "start" in parts:
        result["start"] = start()
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def photographs_summary() -> dict[str, float]:
    sizes = [len(photograph) for photograph in photographs()]
    return {"count": len(sizes), "mean_kb": float(np.mean(sizes)) / 1e3, "median_kb": float(np.median(sizes)) / 1e3}


def photographs() -> list[bytes]:
    return list(data.encoded(FILES.raw))


# The contenders.


def ours(folder: Path = FILES.release, setting: Mapping[str, str] = MappingProxyType({})) -> ServerCommand:
    """Return the server of the release in `folder`, with defaults or another `setting`."""
    environment = {f"SERVING_{key.upper()}": value for key, value in setting.items()}
    command = (sys.executable, "-m", "serving", "--port", "{port}")
    name = ", ".join(f"{key} {value}" for key, value in setting.items())
    return ServerCommand(f"served here ({name})" if name else "served here", command, folder, environment)


def peers(model: Path) -> list[ServerCommand]:
    python, cores = str(peers_python().absolute()), str(available_cores())

    def peer(name: str, module: str, *rest: str, form: bool = True) -> ServerCommand:
        command = (python, "-m", f"benchmarks.serving_peers.{module}", str(model), *rest)
        return ServerCommand(name, command, Path(), {}, form)

    def mosec(name: str, batch: int) -> ServerCommand:
        return peer(name, "mosec_processes", cores, str(batch), "--address", HOST, "--port", "{port}", form=False)

    return [
        peer("plain FastAPI", "plain_fastapi", "{port}", "0"),
        peer("plain FastAPI, sessions of one thread", "plain_fastapi", "{port}", "1"),
        peer("LitServe", "lit_serve", "{port}", cores),
        mosec("mosec", 1),
        mosec("mosec, batches of 2", 2),
    ]


def peers_python() -> Path:
    """Return the Python of the other servers' environment; make it if it is missing or has other versions."""
    versions = {name: installed(name) for name in ("onnxruntime-gpu", "onnxruntime", "numpy", "pillow")}
    pins = [f"{name}=={version}" for name, version in versions.items() if version]
    wanted = "\n".join([REQUIREMENTS.read_text(), *pins])
    python, stamp = PEERS / "bin/python", PEERS / "installed"
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True)
        install = ["pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS), *pins]
        subprocess.run([str(python), "-m", *install], check=True)
        stamp.write_text(wanted)
    return python


@contextmanager
def release_of(model: Path) -> Iterator[Path]:
    """Give the release; if `model` is not the one in it, a copy of the release with `model` as fp32."""
    if sha256(model) == sha256(FILES.release / "model.onnx"):
        yield FILES.release
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "release"
        shutil.copytree(FILES.release, copy)
        shutil.copy(model, copy / "model.onnx")
        manifest = read_json(copy / "MANIFEST.json")
        manifest["files"]["model.onnx"] = {"sha256": sha256(model), "bytes": model.stat().st_size}
        write_json(copy / "MANIFEST.json", {**manifest, "variant": "fp32"})
        yield copy


# throughput


def throughput(variant: str, settings: Sequence[Mapping[str, str]], seconds: int, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"seconds": seconds, "rounds": rounds, "connections": CONNECTIONS, "released": variant}
    variants = {"fp32": FILES.variant("fp32"), variant: FILES.release / "model.onnx"}
    for name, model in variants.items():
        with release_of(model) as folder:
            servers = [*peers(model.absolute()), *(ours(folder, setting) for setting in settings)]
            result[name] = compare_servers(servers, model, seconds, rounds)
    pins = [line.split("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    return {**result, "versions": dict(pins)}


def compare_servers(servers: Sequence[ServerCommand], model: Path, seconds: int, rounds: int) -> dict[str, Any]:
    """Measure the uploads a second of every server in every round, and their shares of the bare session's."""
    session = open_model(model)
    expected = [answer(session, photograph)["labels"] for photograph in photographs()]
    turns: dict[str, Callable[[], dict[str, Any]]] = {BARE: partial(bare_turn, model, seconds)}
    for server in servers:
        turns[server.name] = partial(server_turn, server, expected, seconds)
    order = random.Random(SEED)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name in order.sample(list(turns), len(turns)):
            found[name].append(turns[name]())
            print(name, json.dumps(found[name][-1]), flush=True)
    return shares(found)


def bare_turn(model: Path, seconds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.serving_peers.bare", str(model), str(seconds), str(available_cores())]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def server_turn(server: ServerCommand, expected: Sequence[Sequence[int]], seconds: int) -> dict[str, Any]:
    requests = [upload(photograph, server.form) for photograph in photographs()]
    with running(server, requests[0]) as found:
        for index, (request, right) in enumerate(zip(requests, expected, strict=True)):
            given = labels(found.port, request)
            if given != right:
                raise BenchmarkError(f"{server.name} answers photograph {index} with {given}, the session with {right}")
        wrk(found.port, requests, WARM_UP)
        return wrk(found.port, requests, seconds)


def wrk(port: int, requests: Sequence[bytes], seconds: int) -> dict[str, Any]:
    """Send the requests in turn, on 8 connections that wait for each answer."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(index) for index in range(len(requests))]
        for file, request in zip(files, requests, strict=True):
            file.write_bytes(request)
        load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
        command = [*load, f"http://{HOST}:{port}", "--", *map(str, files)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return parse_wrk(printed)


def parse_wrk(printed: str) -> dict[str, Any]:
    """Read from serving.lua's output the uploads a second answered 2xx, `errors` of any kind, and milliseconds."""
    found = json.loads(printed.splitlines()[-1])
    return {
        "rate": (found["answers"] - found["not_2xx"]) / (found["microseconds"] / 1e6),
        "errors": sum(found[key] for key in ("not_2xx", "connect", "read", "write", "timeout")),
        "median_ms": found["median_us"] / 1e3,
        "p99_ms": found["p99_us"] / 1e3,
    }


def shares(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Return each contender's uploads a second of every round, and its share of the bare session with an interval."""
    bare = [turn["rate"] for turn in found[BARE]]
    result = {}
    for name, turns in found.items():
        rates = [turn["rate"] for turn in turns]
        share, low, high = speedup_interval(rates, bare, len(bare), SEED)
        result[name] = {"rates": rates, "rate": float(np.median(rates)), "share": share, "low": low, "high": high}
        if name != BARE:
            result[name]["errors"] = int(sum(turn["errors"] for turn in turns))
            result[name]["median_ms"] = float(np.median([turn["median_ms"] for turn in turns]))
    return result


# latency and overload


def capacity(found: Running, seconds: int) -> float:
    """Return the uploads a second that wrk reaches: the median of three runs of `seconds`."""
    requests = [upload(photograph, True) for photograph in photographs()]
    wrk(found.port, requests, WARM_UP)
    return float(np.median([wrk(found.port, requests, seconds)["rate"] for _ in range(3)]))


def latency(seconds: int) -> dict[str, Any]:
    with running(ours(), READY) as found:
        most = capacity(found, seconds)
        rate = most * LATENCY_LOAD
        result: dict[str, Any] = {"capacity": most, "rate": rate, "seconds": LATENCY_SECONDS}
        for kind in ("even", "poisson"):
            load, requests = offer(found, {"rate": rate, "seconds": LATENCY_SECONDS, "arrivals": kind})
            result[kind] = {**latency_summary(requests["latency"], requests["status"]), **load_summary(load, requests)}
    seconds_in_queue = ideal_queue(LATENCY_LOAD, available_cores()) * available_cores() / most
    result["ideal"] = latency_summary(seconds_in_queue, np.full(len(seconds_in_queue), 200))
    return result


def ideal_queue(load: float, threads: int, arrivals: int = 200_000) -> np.ndarray:
    """Simulate one queue before `threads` that each take the same time for every request, which come at random.

    Returns the times from arrival to end, in units of a request's time on its thread (M/D/c in Kendall's notation). No
    server that runs one request after the other on each of its threads, all in the same time, can be better at `load`,
    a share of what the threads can do.
    """
    due = np.random.default_rng(SEED).exponential(1 / (load * threads), arrivals).cumsum()
    free = [0.0] * threads  # when each thread ends its last request
    ends = np.empty(arrivals)
    for index, time_due in enumerate(due):
        ends[index] = max(heapq.heappop(free), time_due) + 1
        heapq.heappush(free, ends[index])
    return ends - due


def overload(seconds: int, minutes: float) -> dict[str, Any]:
    memory: list[float] = []
    with running(ours(), READY) as found:
        most = capacity(found, seconds)
        load_settings = {"rate": most * OVERLOAD, "seconds": minutes * 60, "arrivals": "even", "recovery": True}
        load, requests = offer(found, load_settings, lambda: memory.append(found.resident_mb()))
    statuses = requests["status"]
    answered = int((statuses == 200).sum())
    return {
        "capacity": most,
        "rate": most * OVERLOAD,
        "minutes": minutes,
        "statuses": status_counts(statuses),
        "goodput": answered / (minutes * 60) / most,
        "accepted": latency_summary(requests["latency"], np.where(statuses == 200, 200, NO_ANSWER)),
        "refused": latency_summary(requests["latency"], np.where(statuses == 503, 200, NO_ANSWER)),
        "memory_mb": memory,
        **memory_summary(memory[: round(minutes * 60)]),
        "ready_seconds": load.get("ready_seconds"),
        "answered_seconds": load.get("answered_seconds"),
        **load_summary(load, requests),
    }


def offer(
    found: Running, settings: Mapping[str, Any], each_second: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run benchmarks/serving_load.py, and return what it prints, and its arrays."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.npz"
        own = {"port": found.port, "connections": LOAD_CONNECTIONS, "recovery": False, "file": str(file)}
        command = [sys.executable, "-m", "benchmarks.serving_load", json.dumps({**own, **settings})]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                each_second()
                time.sleep(1)
            printed = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise BenchmarkError(f"the load ended with exit code {process.returncode}")
        with np.load(file) as arrays:
            return json.loads(printed), dict(arrays)


def latency_summary(seconds: np.ndarray, statuses: np.ndarray) -> dict[str, float | None]:
    """Return the LATENCIES of uploads that were answered 200; percentiles are interpolated linearly."""
    answered = seconds[statuses == 200] * 1e3
    if not len(answered):
        return {"answers": 0, **dict.fromkeys(LATENCIES)}
    median, p95, p99 = (float(value) for value in np.percentile(answered, [50, 95, 99]))
    return {"answers": len(answered), **dict(zip(LATENCIES, (median, p95, p99, p99 / median), strict=True))}


def load_summary(load: Mapping[str, float], requests: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the load's share of one core, how late it was, and how many uploads were not answered 200 or 503."""
    return {
        "load_cpu_share": load["cpu_share"],
        "load_late_p99_ms": float(np.percentile(requests["late"], 99)) * 1e3,
        "errors": int((~np.isin(requests["status"], (200, 503))).sum()),
    }


def status_counts(statuses: np.ndarray) -> dict[str, int]:
    names = {FAILED: "connection failed", NO_CONNECTION: "no connection free", NO_ANSWER: "no answer"}
    counts = Counter(statuses.tolist())
    return {names.get(status, str(status)): count for status, count in sorted(counts.items())}


def memory_summary(memory: Sequence[float]) -> dict[str, float]:
    """Return the median MB of the second and of the last tenth of the time, and the growth as a share."""
    tenth = max(1, len(memory) // 10)
    early, late = float(np.median(memory[tenth : 2 * tenth])), float(np.median(memory[-tenth:]))
    return {"memory_early_mb": early, "memory_late_mb": late, "memory_growth": late / early - 1}


# start


def start() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        shutil.copytree(FILES.release, release)
        server = ours(release)
        seconds: dict[str, list[float]] = {"without_pycache": [], "with_pycache": []}
        for _ in range(STARTS):
            for cache in list(release.rglob("__pycache__")):
                shutil.rmtree(cache)
            for times in seconds.values():  # the first start makes the cache for the second
                with running(server, READY) as found:
                    times.append(time.perf_counter() - found.started)
    return {
        name: {"seconds": times, "median": float(np.median(times)), "max": max(times)}
        for name, times in seconds.items()
    }


def parse_setting(text: str) -> dict[str, str]:
    """Parse a setting such as `threads=2,workers=1`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name and value for name, _, value in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,...")
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="what to measure (all)")
    parser.add_argument(
        "--setting", action="append", type=parse_setting, default=[], help="another contender: threads=2,workers=1"
    )
    parser.add_argument("--seconds", type=int, default=10, help="seconds of one turn of wrk (10)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of the throughput (6)")
    parser.add_argument("--minutes", type=float, default=10, help="minutes of overload (10)")
    run_tool(main, parser)
