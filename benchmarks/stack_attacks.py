"""Attack a server with what its HTTP has to withstand, for benchmarks/serving_stacks.py.

Each function takes a running server and returns in a few words what a client saw. RECEIVE, IDLE and CONNECTIONS are
what the server was told.
"""

import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

import psutil

from tools.server_process import HOST, READY, Running, ask, upload

RECEIVE, IDLE, CONNECTIONS = 2, 2, 2048  # seconds for a head and a body, seconds without a request, open connections
PATIENCE = 3 * RECEIVE
BYTE_EACH = 0.2  # seconds
ENDLESS = 20_000_000  # bytes
STALLED = 3000
HEAD = f"GET /v2/health/live HTTP/1.1\r\nHost: {HOST}\r\n".encode()
POST = f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: multipart/form-data; boundary=x\r\n".encode()


def connect(found: Running, patience: float = PATIENCE) -> socket.socket:
    return socket.create_connection((HOST, found.port), patience)


def read_status(client: socket.socket) -> str:
    """Return the status of the next answer, or how the connection ended."""
    try:
        received = client.recv(65536)
    except (TimeoutError, BlockingIOError):
        return "no answer"
    except ConnectionError:
        return "reset"
    return received.split(b" ", 2)[1].decode() if received.startswith(b"HTTP/") else "closed"


def drip(found: Running, begun: bytes) -> str:
    """Send a request a byte at a time, and return its status and after how many seconds it came."""
    start = time.perf_counter()
    with closing(connect(found, BYTE_EACH)) as client:
        client.sendall(begun)
        while time.perf_counter() - start < PATIENCE:
            status = read_status(client)
            if status != "no answer":
                return f"{status} after {time.perf_counter() - start:.1f} s"
            with suppress(OSError):
                client.sendall(b"x")
    return "stays open"


def slow_head(found: Running) -> str:
    return drip(found, HEAD + b"X: ")


def slow_body(found: Running) -> str:
    return drip(found, POST + b"Content-Length: 1000\r\n\r\n")


def silent(found: Running) -> str:
    start = time.perf_counter()
    with closing(connect(found)) as client:
        status = read_status(client)
        return "stays open" if status == "no answer" else f"{status} after {time.perf_counter() - start:.1f} s"


def unread(found: Running) -> str:
    """Ask for more answers than sockets hold, and read none; return after how many seconds the server lets go."""
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((HOST, found.port))
        port = client.getsockname()[1]
        with suppress(OSError):
            for _ in range(20):
                client.sendall(READY.replace(b"/v2/health/ready", b"/openapi.json") * 50)
                time.sleep(0.05)
        start = time.perf_counter()
        while time.perf_counter() - start < PATIENCE:
            if not any(c.raddr and c.raddr.port == port for p in found.tree() for c in p.net_connections()):
                return f"closed after {time.perf_counter() - start:.1f} s"
            time.sleep(0.1)
    return "stays open"


def large_head(found: Running) -> str:
    with closing(connect(found)) as client:
        with suppress(OSError):
            client.sendall(HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n")
        return read_status(client)


def endless_head(found: Running) -> str:
    """Send one header without an end, and return what was answered and when."""
    with closing(connect(found, 0.001)) as client:
        client.sendall(HEAD + b"X: ")
        for sent in range(0, ENDLESS, 10_000):
            if (status := read_status(client)) != "no answer":
                return f"{status} after {sent / 1e3:.0f} kB"
            with suppress(OSError):
                client.sendall(b"x" * 10_000)
    return f"takes {ENDLESS / 1e6:.0f} MB"


def body_over_limit(found: Running) -> str:
    """Send a body over the limit whole before reading, as most clients do."""
    with closing(connect(found)) as client:
        try:
            client.sendall(POST + b"Content-Length: 50000000\r\n\r\n" + bytes(50_000_000))
        except OSError:
            return "reset while sending"
        return read_status(client)


def no_http(found: Running) -> str:
    with closing(connect(found)) as client:
        client.sendall(b"hello\r\n\r\n")
        received = b""
        with suppress(OSError):
            while part := client.recv(65536):
                received += part
        status = received.split(b" ", 2)[1].decode() if received.startswith(b"HTTP/") else "closed"
        return status + (", JSON" if b'{"error"' in received else ", no text" if status != "closed" else "")


def http2_offer(found: Running) -> str:
    """Offer HTTP/2 with a body, as Java's client does by default."""
    form = upload(b"no picture", True)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\nContent-Type"
    with closing(connect(found)) as client:
        client.sendall(form.replace(b"Content-Type", offer, 1))
        return read_status(client)  # 422: the body was read, and is no picture


def many_connections(found: Running) -> str:
    """Hold STALLED connections with a request that has begun; return how many were turned away, and the memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(STALLED + 500, hard)), hard))
    before = found.resident_mb()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(found))) for _ in range(STALLED)]
        for client in clients:
            client.setblocking(False)
            with suppress(OSError):
                client.sendall(b"P")
        time.sleep(RECEIVE / 4)
        ends = Counter(read_status(client) for client in clients)
        ends["held"] = ends.pop("no answer", 0)
        return f"{', '.join(f'{n:,} {s}' for s, n in ends.items())}; {found.resident_mb() - before:+.0f} MB"


def many_then_free(found: Running) -> str:
    """Hold half of the allowed connections; return whether others are answered."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS // 2):
            stack.enter_context(closing(connect(found))).sendall(b"P")
        start = time.perf_counter()
        code, _ = ask(found.port, HEAD + b"\r\n")
        return f"{code} in {(time.perf_counter() - start) * 1e3:.0f} ms"


def left(found: Running, photograph: bytes) -> str:
    """Send 40 photographs and leave; return for how many of them the model ran."""
    before = rows(found)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(closing(connect(found))).sendall(upload(photograph, True))
    settled = -1.0
    while settled != (now := rows(found)):
        settled = now
        time.sleep(0.5)
    return f"{now - before:.0f} of 40 run"


def rows(found: Running) -> float:
    _, body = ask(found.port, READY.replace(b"/v2/health/ready", b"/metrics"))
    return float(body.decode().partition("\nserving_batch_rows_sum ")[2].partition("\n")[0] or 0)


def drain(found: Running, photograph: bytes) -> str:
    """Stop the server with 24 requests in flight; return their answers, what a late request sees, and the exit code."""
    request = upload(photograph, True)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(found, 30))) for _ in range(24)]
        half = stack.enter_context(closing(connect(found, 30)))
        half.sendall(READY[:-2])
        for client in clients:
            client.sendall(request)
        time.sleep(0.05)  # the requests have arrived
        found.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        with suppress(OSError):
            half.sendall(b"\r\n")
        late = read_status(half)
        statuses = Counter(read_status(client) for client in clients)
    answers = f"{', '.join(f'{n} × {s}' for s, n in statuses.items())}; ready: {late}"
    try:
        return f"{answers}; exit code {found.process.wait(30)}"
    except psutil.TimeoutExpired:
        return f"{answers}; does not end"


ATTACKS: dict[str, Callable[[Running], str]] = {
    "a head, a byte at a time": slow_head,
    "a body, a byte at a time": slow_body,
    "a connection without a request": silent,
    "answers that nobody reads": unread,
    "a head of 70 kB": large_head,
    "a head without an end": endless_head,
    "a body over the limit, sent whole": body_over_limit,
    "what is not HTTP": no_http,
    "an offer of HTTP/2 with a body": http2_offer,
    f"{CONNECTIONS // 2} stalled connections, and a request": many_then_free,
    f"{STALLED} stalled connections, of {CONNECTIONS} allowed": many_connections,
}
