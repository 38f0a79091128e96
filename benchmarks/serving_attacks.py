"""Attack the server with requests that cost far more than their bytes suggest, and measure what they cost it.

    python -m benchmarks.serving_attacks                      # all attacks, about 2 minutes on 2 cores
    python -m benchmarks.serving_attacks --only TIFF          # those whose names have this text
    python -m benchmarks.serving_attacks --release FOLDER     # another release than mobilenet_v2's

writes benchmarks/serving_attacks.json, and prints the table. A server with its defaults, except that it reads all
formats, is started once. Each attack is sent by four clients at once, one by 32, and one of 16 files by one: files that
are long or large to decode (benchmarks/attack_files.py), JSON that is long to parse, heads and bodies that arrive a
byte at a time, bodies in chunks of one byte, heads of many headers, clients who leave at once, and clients who ask for
large answers and read none. Meanwhile this process asks /v2/health/live, each time on a new connection, and reads
/proc. For each attack:

- longest wait: of /v2/health/live, in seconds. At most 0.25. Beside it is how long the event loop's thread waited for a
  core in that time, which the kernel counts: that is not the server's doing where other programs have the cores.
- CPU after the deadline: seconds of CPU time of all the server's processes from the first client's deadline until they
  are idle again. At most 2 for each thread that decodes.
- memory: the most that all the server's processes had at once, in MB (10^6 bytes): anonymous memory, and the memory
  that they share counted once. At most `bound_mb`, which docs/serving.md promises.
- late: the most seconds by which a 504 came after its deadline, counted from the last byte of a request. At most 0.2.
- the statuses of the answers: 0 is a connection that was closed without one.

On a machine that does other things at the same time, too, all waits are longer: the first row is a server that nobody
attacks. Needs Linux and a finished `make repro MODEL=mobilenet_v2`.
"""

import argparse
import gzip
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.attack_files import attacks, progressive_jpeg
from benchmarks.memory_bound import memory_bound
from benchmarks.serving import FILES, ours
from benchmarks.serving_page import MODEL
from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import available_cores, machine_name
from onnx_release.core.paths import HARDWARE
from onnx_release.report.text import number, table
from onnx_release.runtime.release import open_release
from serving.settings import FORMATS, Settings
from tools.server_process import HOST, READY, Running, ask, post, running, upload

RESULT = Path("benchmarks/serving_attacks.json")
CLIENTS = 4
LONGEST_WAIT = 0.25  # seconds
CPU_AFTER = 2.0  # seconds for each thread
TOO_LATE, LATE = 504, 0.2  # status, and seconds after the deadline
MANY_CLIENTS = 32  # whose files take longer than the deadline, all together; small ones arrive as soon as they are sent
UNREAD = 100  # requests whose answers nobody reads: more than the kernel keeps the answers of
PATIENCE = 90.0  # seconds until an attack is given up
PAUSE = 0.01  # seconds between two questions
TREE_SECONDS = 0.2  # between two looks for new processes
IDLE_SECONDS, IDLE_CPU = 0.5, 0.03  # so little CPU in so long a time is an idle server
SLOW_SECONDS = 0.5  # between two bytes of a slow client
SMALL_BUFFER = 4096  # bytes that the kernel takes for a client who does not read; without it, megabytes
TICKS = 100  # of /proc's clock in a second
LIVE = READY.replace(b"ready", b"live")


@dataclass(frozen=True)
class Load:
    """What each client sends: pieces of a request, with `pause` seconds after each.

    One that leaves reads no answer, and one that never reads sends until the server closes the connection.
    """

    name: str
    pieces: Callable[[], list[bytes]]
    statuses: tuple[int, ...]
    pause: float = 0.0
    leaves: bool = False
    reads: bool = True
    clients: int = CLIENTS


@dataclass
class Cost:
    """What an attack cost: seconds, MB, and how many answers there were of each status."""

    name: str
    longest_wait: float = 0.0
    without_core: float = 0.0
    cpu: float = 0.0
    cpu_after: float = 0.0
    memory_mb: float = 0.0
    late: float | None = None
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)


def main(arguments: argparse.Namespace) -> None:
    if not Path("/proc/self/status").is_file():
        raise BenchmarkError("it reads /proc, which only Linux has: run it there")
    chosen = [load for load in loads() if not arguments.only or arguments.only.lower() in load.name.lower()]
    if not chosen:
        raise BenchmarkError(f"no attack has {arguments.only!r} in its name: see benchmarks/attack_files.py")
    settings = Settings(formats=",".join(FORMATS))
    bound = memory_bound(settings, open_release(arguments.release).spec)
    costs = []
    with running(ours(arguments.release, {"formats": settings.formats}), READY) as server:
        for load in [Load("no attack", list, ()), *chosen]:
            costs.append(measure(load, server, settings, bound))
            print(json.dumps(asdict(costs[-1])), flush=True)
    result = {
        "machine": machine_name(read_json(HARDWARE)) if HARDWARE.is_file() else "unknown",
        "clients": CLIENTS,
        "bound_mb": bound / 1e6,
        "attacks": [asdict(cost) for cost in costs],
    }
    if not arguments.only:
        write_json(RESULT, result)
    print(describe(result))


def describe(result: dict[str, Any]) -> str:
    rows = [
        [
            cost["name"],
            f"{cost['longest_wait']:.3f}",
            f"{cost['without_core']:.3f}",
            f"{cost['cpu']:.1f}",
            f"{cost['cpu_after']:.2f}",
            number(cost["memory_mb"]),
            "-" if cost["late"] is None else f"{cost['late']:.3f}",
            ", ".join(f"{count} × {status}" for status, count in cost["statuses"].items()),
            ", ".join(cost["misses"]) or "-",
        ]
        for cost in result["attacks"]
    ]
    header = [
        "attack",
        "longest wait, s",
        "without a core, s",
        "CPU, s",
        "after the deadline, s",
        "MB",
        "504 late, s",
        "answers",
        "misses",
    ]
    return f"{table(header, rows)}\n\nat most {number(result['bound_mb'])} MB are promised"


# The attacks.


def loads() -> list[Load]:
    """List all attacks."""
    files = [
        Load(attack.name, lambda attack=attack: [upload(attack.make(), True)], attack.statuses)  # type: ignore[misc]
        for attack in attacks()
    ]
    by_name = {load.name: load for load in files}
    slowest, small = by_name["BMP, runs of one pixel"], by_name["PNG, interlaced, 50 million pixels"]
    many = b"".join(
        b'--onnx-release-photograph\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(400_000)
    )
    boundary = "multipart/form-data; boundary=onnx-release-photograph"
    return [
        *files,
        Load("clients who leave at once", slowest.pieces, (), leaves=True),
        Load("answers that nobody reads", lambda: [largest_answer()] * UNREAD, (0,), reads=False),
        Load("more slow files than the deadline allows", small.pieces, small.statuses, clients=MANY_CLIENTS),
        Load("one request of 16 JPEGs of 20 empty scans", many_scans, (200, 413, 422), clients=1),
        Load("a form of 400,000 parts", lambda: [post("/predict", many, boundary)], (400, 413)),
        Load("40 MB that are nearly a boundary", lambda: [post("/predict", nearly_a_boundary(), boundary)], (400, 413)),
        Load("JSON, gzipped, 4.7 million empty objects", lambda: gzipped(objects(4_700_000)), (400, 413)),
        Load("JSON, gzipped, 900 MB of blanks", lambda: gzipped(b'{"inputs":[' + b" " * 900_000_000), (400, 413)),
        Load("JSON of empty lists", lambda: [infer(b'{"inputs":[' + b"[]," * 12_000_000)], (400, 413)),
        Load("JSON, 10 million levels deep", lambda: [infer(b'{"inputs":' + b"[" * 10_000_000)], (400, 413)),
        Load(
            "JSON, a number of 30 million digits", lambda: [infer(b'{"inputs":' + b"9" * 30_000_000 + b"}")], (400, 413)
        ),
        Load("JSON of short numbers", lambda: [infer(numbers(15_000_000))], (400, 413)),
        Load("a body in chunks of one byte", lambda: [in_single_bytes("/predict")], (400,)),
        Load("chunks of one byte to an address that is not there", lambda: [in_single_bytes("/nothing")], (400, 404)),
        Load("a head of which a byte comes at a time", lambda: single_bytes(LIVE[:-1] * 2), (408, 400), SLOW_SECONDS),
        Load("a body of which a byte comes at a time", slow_body, (408,), SLOW_SECONDS),
        Load("a head of 100 kB", lambda: [LIVE[:-2] + b"a: " + b"b" * 100_000 + b"\r\n\r\n"], (431,)),
        Load("a head of 60,000 headers", lambda: [LIVE[:-2] + b"a:\r\n" * 60_000 + b"\r\n"], (431,)),
    ]


def many_scans() -> list[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + progressive_jpeg(20)
    return [post("/predict", (part + b"\r\n") * 16 + b"--b--\r\n", "multipart/form-data; boundary=b")]


def largest_answer() -> bytes:
    """Return a request with as many items as four clients may have in the queue at once, for an answer in JSON."""
    rows = Settings().queue // CLIENTS
    pixels = bytes(rows * 3 * 224 * 224 * 4)
    tensor = {"name": "input", "shape": [rows, 3, 224, 224], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(pixels)}}]}).encode()
    length = b"Inference-Header-Content-Length: %d\r\nContent-Length" % len(head)
    return infer(head + pixels).replace(b"Content-Length", length, 1)


def infer(body: bytes) -> bytes:
    return post(f"/v2/models/{MODEL}/infer", body, "application/json")


def objects(count: int) -> bytes:
    return b'{"inputs":[' + b'{"":{}},' * count + b"{}]}"


def numbers(count: int) -> bytes:
    head = b'{"inputs":[{"name":"input","shape":[1,3,224,224],"datatype":"FP32","data":['
    return head + b"0," * count + b"0]}]}"


def gzipped(body: bytes) -> list[bytes]:
    packed = gzip.compress(body, 6)
    return [infer(packed).replace(b"Content-Length", b"Content-Encoding: gzip\r\nContent-Length", 1)]


def nearly_a_boundary() -> bytes:
    head = b'--onnx-release-photograph\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + b"\r\n--onnx-release-photograp" * ((39_000_000 - len(head)) // 26)


def single_bytes(request: bytes) -> list[bytes]:
    return [request[place : place + 1] for place in range(len(request))]


def in_single_bytes(path: str) -> bytes:
    """Return a request whose body of 8 MB is in chunks of one byte: 48 MB."""
    head, _, _ = post(path, b"", "image/jpeg").partition(b"Content-Length")
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 8_000_000 + b"0\r\n\r\n"


def slow_body() -> list[bytes]:
    head, _, body = upload(bytes(1000), True).partition(b"\r\n\r\n")
    return [head + b"\r\n\r\n", *single_bytes(body)]


# The measurement.


class Client(threading.Thread):
    """Sends a request, and keeps the status of the answer, and when its last byte was sent and the answer had come."""

    def __init__(self, port: int, pieces: list[bytes], load: Load) -> None:
        super().__init__(daemon=True)
        self.port, self.pieces, self.load = port, pieces, load
        self.status, self.sent, self.answered = 0, 0.0, 0.0

    def run(self) -> None:
        with socket.socket() as connection:
            connection.settimeout(PATIENCE)
            if not self.load.reads:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)  # before it connects
            connection.connect((HOST, self.port))
            with suppress(OSError):  # the server may answer before it has read everything, and close
                self.send(connection)
            self.sent = time.monotonic()
            if self.load.reads and not self.load.leaves:
                with suppress(OSError, http.client.HTTPException):
                    response = http.client.HTTPResponse(connection, method="POST")
                    response.begin()
                    response.read()
                    self.status, self.answered = response.status, time.monotonic()

    def send(self, connection: socket.socket) -> None:
        for piece in self.pieces:
            connection.sendall(piece)
            if self.load.pause:
                connection.settimeout(self.load.pause)
                with suppress(TimeoutError):
                    if connection.recv(1, socket.MSG_PEEK):
                        break
                connection.settimeout(PATIENCE)


def measure(load: Load, server: Running, settings: Settings, bound: int) -> Cost:
    """Send the attack from all clients at once, and watch the server until all are answered and it is idle."""
    pieces = load.pieces()
    clients = [Client(server.port, pieces, load) for _ in range(load.clients if pieces else 0)]
    cost, watched = Cost(load.name), Watch(server)
    start, before = time.monotonic(), watched.cpu()
    at_deadline: float | None = None
    for client in clients:
        client.start()
    for cpu, memory, wait, without_core in watched.samples():
        now = time.monotonic()
        cost.memory_mb = max(cost.memory_mb, memory / 1e6)
        cost.longest_wait, cost.without_core = max((cost.longest_wait, cost.without_core), (wait, without_core))
        sent = [client.sent for client in clients if client.sent]
        first = min(sent, default=now) if load.reads else max(sent, default=now)  # the others send one after another
        if at_deadline is None and sent and now > first + settings.deadline:
            at_deadline = cpu
        cost.seconds, cost.cpu = now - start, cpu - before
        done = all(not client.is_alive() for client in clients)
        if (done and cost.seconds > 1 and watched.idle()) or cost.seconds > PATIENCE:
            break
    cost.cpu_after = watched.cpu() - at_deadline if at_deadline is not None else 0.0
    late = [client.answered - client.sent - settings.deadline for client in clients if client.status == TOO_LATE]
    cost.late = max(late, default=None)
    if not load.leaves:
        cost.statuses = {str(status): count for status, count in Counter(client.status for client in clients).items()}
    cost.misses = misses(cost, load, settings, bound)
    return cost


def misses(cost: Cost, load: Load, settings: Settings, bound: int) -> list[str]:
    """Say which promises were not kept. An answer that the server had no time for, 503 or 504, is right for all."""
    found = []
    if cost.longest_wait > LONGEST_WAIT:
        found.append("wait")
    if cost.cpu_after > CPU_AFTER * (settings.threads or available_cores()):
        found.append("CPU")
    if cost.memory_mb > bound / 1e6:
        found.append("memory")
    if cost.late is not None and cost.late > LATE:
        found.append("late")
    if any(int(status) not in (*load.statuses, 503, TOO_LATE) for status in cost.statuses):
        found.append("status")
    return found


class Watch:
    """What the processes of a server take, read from /proc."""

    def __init__(self, server: Running) -> None:
        self.server, self.looked = server, 0.0
        [self.worker] = [child.pid for child in server.process.children() if "--worker" in child.cmdline()]
        self.pids: list[int] = []
        self.history: list[tuple[float, float]] = []

    def samples(self) -> Iterator[tuple[float, int, float, float]]:
        """Yield seconds of CPU time so far, bytes of memory now, and the wait for /v2/health/live and for a core."""
        while True:
            start, queued = time.monotonic(), self.without_core()
            with suppress(OSError, http.client.HTTPException):  # no answer within the time of `ask`
                ask(self.server.port, LIVE)
            wait, without_core = time.monotonic() - start, self.without_core() - queued
            cpu = self.cpu()
            self.history.append((time.monotonic(), cpu))
            yield cpu, self.memory(), wait, without_core
            time.sleep(PAUSE)

    def without_core(self) -> float:
        """Return how long the event loop's thread has been ready to run without a core so far, in seconds."""
        pid = self.worker
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9

    def processes(self) -> list[int]:
        if time.monotonic() - self.looked > TREE_SECONDS:
            self.pids = [process.pid for process in self.server.tree()]
            self.looked = time.monotonic()
        return self.pids

    def cpu(self) -> float:
        """Return the CPU time of the tree, with that of processes which have ended, in seconds."""
        ticks = 0
        for pid in self.processes():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                ticks += sum(map(int, fields[11:15]))  # of the process, and of those of its children that have ended
        return ticks / TICKS

    def memory(self) -> int:
        """Return the memory of the tree in bytes; what is shared counts once, where it is largest."""
        own, shared = 0, 0
        for pid in self.processes():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
                if sizes:
                    own += int(sizes["RssAnon"]) * 1024
                    shared = max(shared, int(sizes["RssShmem"]) * 1024)
        return own + shared

    def idle(self) -> bool:
        now, cpu = self.history[-1]
        earlier = [(time, cpu) for time, cpu in self.history if time <= now - IDLE_SECONDS]
        return bool(earlier) and cpu - earlier[-1][1] < IDLE_CPU + 0.1 * IDLE_SECONDS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only attacks whose names have this text")
    parser.add_argument("--release", type=Path, default=FILES.release, help="the release's folder (mobilenet_v2's)")
    run_tool(main, parser)
