"""Limits of one connection, as a client meets them: what is slow, too large, malformed, or leaves."""

import asyncio
import gzip
import random
import resource
import time
from contextlib import ExitStack
from select import select

import psutil
import pytest
import uvicorn
from prometheus_client import REGISTRY
from starlette.responses import Response
from uvicorn.server import ServerState

from serving.answering import COPIED_BYTES
from serving.connection import BODY_BYTES, CHUNK_BYTES, CHUNKS, HEADERS, REST_BYTES, Connection
from serving.record import recorded
from serving.settings import Settings
from tests.served import PATIENCE, head, wire_app
from tests.wire_routes import LARGE

UPLOAD = head("/body", "POST", Content_Length=10)


@pytest.fixture(scope="module")
def server():
    with wire_app(receive=0.4, receive_rate=50_000, body_bytes=100_000, buffered_bytes=150_000) as server:
        yield server


@pytest.fixture(scope="module")
def strict():
    """Few connections, which are soon idle and never slow."""
    with wire_app(receive=60, idle=0.2, connections=3) as server:
        yield server


@pytest.fixture(scope="module")
def roomy():
    """Large bodies, and a rate that every client keeps."""
    with wire_app(receive=0.4, receive_rate=1000) as server:
        yield server


def check_refused(client, status):
    """The last answer on a connection, which says what is wrong in JSON."""
    answer = client.answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert client.closed()
    return answer


@pytest.mark.parametrize("begun", [b"G", b"GET /process HTTP/1.1\r\nHost: te", UPLOAD, UPLOAD + b"012345678"])
def test_a_request_that_does_not_arrive_in_full_is_answered_408(server, begun):
    with server.connect() as client:
        part = "body" if begun.startswith(UPLOAD) else "head"
        assert part in check_refused(client.send(begun), 408).json()["error"]


def test_a_byte_now_and_then_does_not_help(server):
    with server.connect() as client:
        client.send(head("/process")[:-2], b"X-Slow: ")
        sent = 0
        while not select([client.socket], [], [], 0.01)[0]:
            client.send(b"x")
            sent += 1
            assert sent < 3000  # or the clock began anew with every byte
        check_refused(client, 408)


@pytest.mark.parametrize(("begun", "rest"), [(head("/process")[:-2], b"\r\n"), (UPLOAD + b"01234", b"56789")])
def test_the_time_that_the_application_takes_does_not_count(server, begun, rest):
    left = server.get("/counts").json()["left"]
    with server.connect() as waiting, server.connect() as slow:
        waiting.send(head(f"/until/left/{left + 1}"), begun)
        with server.connect() as leaves:
            leaves.send(head("/until/left", "POST", Content_Length=1), b"0")
            check_refused(slow.send(b"G"), 408)  # so that the time is over for the others
        assert waiting.answer().status == 200
        assert waiting.send(rest).answer().status == 200


def test_a_body_may_take_as_long_as_the_least_rate_allows(roomy):
    """Two other clients, one after the other, have each had their time before this one is done."""
    with roomy.connect() as large:
        large.send(head("/body", "POST", Transfer_Encoding="chunked"))
        sent = 0
        for _ in range(2):
            with roomy.connect() as small:
                small.send(UPLOAD, b"012345678")
                while not select([small.socket], [], [], 0.01)[0]:
                    large.send(chunked(2000, 1))
                    sent += 2000
                check_refused(small, 408)
        assert large.send(b"0\r\n\r\n").answer().json() == sent


def test_bytes_that_came_fast_do_not_pay_for_a_long_silence(roomy):
    """At 1,000 bytes a second a million bytes are worth a quarter of an hour."""
    with roomy.connect() as large:
        large.send(head("/body", "POST", Content_Length=1_000_001), bytes(1_000_000))
        others = 0
        while not select([large.socket], [], [], 0)[0]:
            others += 1
            assert others < 10
            with roomy.connect() as small:
                check_refused(small.send(b"G"), 408)
        assert "1,000 bytes a second" in check_refused(large, 408).json()["error"]


def test_a_thousand_connections_that_stall_harm_nobody(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    with ExitStack() as stack:
        stalled = [stack.enter_context(server.connect()).send(b"P") for _ in range(1000)]
        assert server.get("/process").status == 200
        for client in stalled:
            check_refused(client, 408)


def test_one_connection_more_than_the_limit_is_answered_503_at_once(strict):
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(strict.connect()).send(b"G")
        with strict.connect() as client:
            assert check_refused(client, 503).headers["retry-after"] == "1"
        with strict.connect() as client:  # also where a request was sent that nobody reads
            client.send(head("/body", "POST", Content_Length=1000), b"0" * 1000)
            check_refused(client, 503)
    status = 503
    while status == 503:  # the connections are closed, which the server learns soon
        status = strict.get("/process").status
    assert status == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n", head("/process")])
def test_an_idle_connection_is_closed(strict, sent):
    with strict.connect() as client:
        client.send(sent)
        if sent.strip():
            assert client.answer().status == 200
        assert client.closed()


def admitted(server):
    """A connection that was answered; others are spared for half a second."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        client = server.connect()
        if client.send(head("/process")).answer().status == 200:
            return client
        client.__exit__()
    raise AssertionError("no connection made room")


def test_a_connection_without_a_request_makes_room_for_another():
    with wire_app(connections=3, idle=600) as server, ExitStack() as stack:
        first, second, third = (stack.enter_context(server.connect()) for _ in range(3))
        for client in (third, second):  # so the first has waited longest, and then the third
            assert client.send(head("/process")).answer().status == 200
        for waited_longest in (first, third):
            client = stack.enter_context(admitted(server))
            assert waited_longest.closed()
            assert client.send(head("/process")).answer().status == 200
        assert second.send(head("/process")).answer().status == 200


def test_a_request_that_has_begun_is_not_idle(strict):
    with strict.connect() as client:
        assert client.send(head("/process"), head("/process")[:-2]).answer().status == 200
        with strict.connect() as idle:
            assert idle.closed()  # so that the time is over for the other
        assert client.send(b"\r\n").answer().status == 200


@pytest.mark.parametrize("ending", [b"", b"\r\n\r\n"])
def test_a_head_has_a_limit(server, ending):
    with server.connect() as client:
        check_refused(client.send(head("/process")[:-2], b"X: ", b"x" * 66_000, ending), 431)


@pytest.mark.parametrize(("count", "status"), [(HEADERS - 1, 200), (HEADERS, 431), (60_000, 431)])
def test_a_head_has_so_many_headers(server, count, status):
    with server.connect() as client:
        client.send(head("/process")[:-2], b"a:\r\n" * count, b"\r\n")  # the other is Host
        if status == 200:
            assert client.answer().status == 200
        else:
            assert "more than 256 headers" in check_refused(client, 431).json()["error"]


def test_a_head_is_measured_as_it_is_sent(server):
    lines = b"".join(b"%d: %s\r\n" % (number, b"x" * 250) for number in range(100, 355))
    with server.connect() as client:  # without colons, blanks and ends of lines it would be short enough
        check_refused(client.send(head("/process")[:-2], lines, b"\r\n"), 431)


def test_trailers_are_counted_with_the_headers(server):
    with server.connect() as client:
        client.send(head("/body", "POST", Transfer_Encoding="chunked"), b"1\r\n0\r\n0\r\n", b"a:\r\n" * HEADERS)
        check_refused(client, 431)


def test_an_offer_of_another_protocol_does_not_multiply_the_headers(server):
    with server.connect() as client:
        client.send(head("/process", Connection="upgrade" + "," * 30_000, Upgrade="h2c"))
        assert client.answer().status == 200


def test_trailers_of_a_chunked_body_have_a_limit(server):
    with server.connect() as client:
        client.send(head("/body", "POST", Transfer_Encoding="chunked"), b"1\r\n0\r\n0\r\nX: ")
        assert server.get("/until/memory/1").status == 200
        check_refused(client.send(b"x" * 66_000), 431)


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        head("/body", "POST", Content_Length="ten"),
        head("/body", "POST", Content_Length="5", Transfer_Encoding="chunked"),
        head("/body", "POST", Transfer_Encoding="chunked") + b"zz\r\n",
        head("http://[", "GET"),
        head("test:80", "CONNECT"),
        head("/\xe4", "GET"),
    ],
)
def test_what_is_not_http_is_answered_400(server, request_):
    with server.connect() as client:
        check_refused(client.send(request_), 400)


def test_requests_sent_ahead_are_answered_in_their_order(server):
    with server.connect() as client:
        client.send(UPLOAD, b"0123456789", head("/none"), head("/process"))
        assert [client.answer().status for _ in range(3)] == [200, 404, 200]


def test_too_many_requests_ahead_end_after_the_answers_to_the_first(server):
    with server.connect() as client:
        client.send(head("/process") * 200)
        for _ in range(9):
            assert client.answer().status == 200
        assert client.closed()


def test_what_is_wrong_after_a_request_does_not_cost_its_answer(server):
    with server.connect() as client:
        answer = client.send(head("/process"), b"hello\r\n\r\n").answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.closed()


def test_head_requests(server):
    with server.connect() as client:
        for _ in range(2):
            answer = client.send(head("/process", "HEAD")).answer("HEAD")
            assert (answer.status, int(answer.headers["content-length"]) > 0) == (200, True)


def test_a_client_that_waits_to_be_told_to_continue(server):
    with server.connect() as client:
        client.send(head("/body", "POST", Content_Length=10, Expect="100-continue"))
        assert client.answer().status == 100
        assert client.send(b"0123456789").answer().content == b"10"
        client.send(head("/body", "POST", Content_Length=100_001, Expect="100-continue"))
        check_refused(client, 413)


@pytest.mark.parametrize("framing", [{"Content_Length": 10}, {"Transfer_Encoding": "chunked"}])
def test_an_offer_of_another_protocol_is_passed_over(server, framing):
    """As Java's HttpClient makes it with every request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAEAAEAAAAIAAAAA"}
    body = b"0123456789" if "Content_Length" in framing else b"a\r\n0123456789\r\n0\r\n\r\n"
    with server.connect() as client:
        for _ in range(2):
            assert client.send(head("/body", "POST", **framing, **offer), body).answer().content == b"10"
        assert client.send(head("/process", **offer), head("/process")).answer().status == 200
        assert client.answer().status == 200


def test_a_body_over_the_limit_is_refused_by_its_declared_length(server):
    with server.connect() as client:
        check_refused(client.send(head("/body", "POST", Content_Length=100_001)), 413)


def test_a_body_over_the_limit_is_cut_off_while_it_streams(server):
    with server.connect() as client:
        client.send(head("/body", "POST", Transfer_Encoding="chunked"), b"ffffff\r\n", b"0" * 200_000)  # of 16 MB
        check_refused(client, 413)
    assert server.get("/until/memory/0").status == 200


def chunked(size, count):
    return (b"%x\r\n" % size + b"x" * size + b"\r\n") * count


@pytest.mark.parametrize(("size", "count", "status"), [(1, CHUNKS - 1, 200), (1, CHUNKS, 400), (50, 1900, 400)])
def test_a_body_may_come_in_a_thousand_small_chunks(server, size, count, status):
    with server.connect() as client:
        client.send(head("/body", "POST", Transfer_Encoding="chunked"), chunked(size, count), b"0\r\n\r\n")
        if status == 200:
            assert client.answer().json() == size * count
        else:
            assert "chunks of fewer than 1,024 bytes" in check_refused(client, 400).json()["error"]


def test_a_body_may_come_in_any_number_of_larger_chunks(roomy):
    with roomy.connect() as client:
        client.send(head("/body", "POST", Transfer_Encoding="chunked"), chunked(CHUNK_BYTES, 3 * CHUNKS), b"0\r\n\r\n")
        assert client.answer().json() == 3 * CHUNKS * CHUNK_BYTES


def test_a_client_that_sends_everything_first_still_reads_why_it_was_refused(server):
    with server.connect() as client:
        client.send(head("/body", "POST", Content_Length=20_000_000), b"0" * 20_000_000)
        check_refused(client, 413)


@pytest.mark.parametrize(
    ("framing", "closes"),
    [
        ({"Content_Length": REST_BYTES}, False),
        ({"Content_Length": REST_BYTES + 1}, True),
        ({"Content_Length": 40_000_000_000}, True),
        ({"Transfer_Encoding": "chunked"}, True),
    ],
)
@pytest.mark.parametrize(("path", "status"), [("/none", 404), ("/process", 405)])
def test_a_long_rest_of_a_body_is_not_read_after_the_answer(server, path, status, framing, closes):
    with server.connect() as client:
        answer = client.send(head(path, "POST", **framing)).answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close" if closes else None)
        if closes:
            client.send(b"1\r\nx\r\n" * 100_000)  # it is dropped
            assert client.closed()
        else:
            assert client.send(bytes(REST_BYTES), head("/process")).answer().status == 200


def test_bodies_in_memory_are_bounded_and_given_back(server):
    with server.connect() as first, server.connect() as second:
        first.send(head("/until/left", "POST", Content_Length=100_000), b"0" * 100_000)
        assert server.get("/until/memory/100000").status == 200
        second.send(head("/body", "POST", Content_Length=60_000), b"0" * 60_000)
        assert check_refused(second, 503).headers["retry-after"] == "1"
    assert server.get("/until/memory/0").status == 200
    with server.connect() as third:
        third.send(head("/body", "POST", Content_Length=60_000), b"0" * 60_000)
        assert third.answer().content == b"60000"


@pytest.mark.parametrize(("size", "status", "content"), [(60_000, 200, b"60000"), (90_000, 413, b"once decompressed")])
def test_memory_for_less_than_two_bodies_is_enough_to_decompress_one(server, size, status, content):
    """Of 150,000 bytes a body of 60,000 that does not become smaller leaves 90,000, and one of 90,000 leaves 60,000."""
    body = gzip.compress(random.Random(0).randbytes(size))
    with server.connect() as client:
        client.send(head("/plain", "POST", Content_Encoding="gzip", Content_Length=len(body)), body)
        answer = client.answer()
    assert answer.status == status and content in answer.content
    assert server.get("/until/memory/0").status == 200


def test_a_client_that_leaves_in_the_middle_of_its_body(server):
    with server.connect() as client:
        client.send(UPLOAD, b"01234")
        assert server.get("/until/memory/5").status == 200
    assert server.get("/until/memory/0").status == 200


def test_a_client_that_leaves_before_its_answer_is_known_to_have_left(server):
    left = server.get("/counts").json()["left"]
    with server.connect() as client:
        client.send(head("/until/left", "POST", Content_Length=5), b"01234")
        assert server.get("/until/memory/5").status == 200
        assert server.get("/counts").json()["left"] == left
    assert server.get(f"/until/left/{left + 1}").status == 200
    assert server.get("/counts").json()["memory"] == 0


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_that_does_not_read_its_answers_is_let_go(roomy, connection):
    def is_open(port):
        (worker,) = psutil.Process(roomy.process.pid).children()
        return any(c.raddr and c.raddr.port == port for c in worker.net_connections())

    with roomy.connect() as client:
        port = client.socket.getsockname()[1]
        client.send(head("/large", Connection=connection) * (1 if connection == "close" else 3))
        assert client.reader.read(1) == b"H"
        while is_open(port):
            pass
        assert len(client.reader.read()) < LARGE


@pytest.fixture(scope="module")
def narrow():
    """Memory for one large answer, whose client may take a minute to read."""
    with wire_app(receive=60, buffered_bytes=LARGE + 10_000_000) as server:
        yield server


def test_an_answer_takes_room_until_it_is_read(narrow):
    with narrow.connect() as slow, narrow.connect() as other:
        slow.send(head("/large"))
        assert slow.reader.read(1) == b"H"
        assert narrow.get(f"/until/memory/{LARGE}").status == 200
        refused = check_refused(other.send(head("/large")), 503)
        assert refused.headers["retry-after"] == "1"
        assert len(slow.reader.read(LARGE)) == LARGE
        assert narrow.get("/until/memory/0").status == 200
    assert len(narrow.get("/large").content) == LARGE


def test_the_room_of_an_answer_is_free_when_its_client_leaves(narrow):
    with narrow.connect() as client:
        client.send(head("/large"))
        assert client.reader.read(1) == b"H"
        assert narrow.get(f"/until/memory/{LARGE}").status == 200
    assert narrow.get("/until/memory/0").status == 200


def test_a_connection_with_requests_ahead_is_closed_where_their_answers_have_no_room(narrow):
    with narrow.connect() as slow, narrow.connect() as other:
        slow.send(head("/large"))
        assert slow.reader.read(1) == b"H"
        assert narrow.get(f"/until/memory/{LARGE}").status == 200
        assert other.send(head("/large") * 3).closed()
    assert narrow.get("/until/memory/0").status == 200


def test_an_answer_that_never_has_room_is_refused(server):
    with server.connect() as client:
        assert "150,000" in check_refused(client.send(head("/large")), 413).json()["error"]


def test_a_client_that_reads_too_slowly_is_let_go():
    """It reads five megabytes in the time in which another one is too slow; that is always less than the rate."""
    with wire_app(receive=0.4, receive_rate=100_000_000) as server, server.connect() as client:
        client.send(head("/large"))
        read = 0
        while part := client.reader.read(5_000_000):
            read += len(part)
            with server.connect() as other:
                check_refused(other.send(b"G"), 408)
        assert read < LARGE


def counted(server, status, path="none"):
    """How many answers of this kind /metrics has."""
    line = f'serving_requests_total{{path="{path}",status="{status}"}} '
    text = server.get("/metrics").content.decode()
    return float(text.partition(line)[2].partition("\n")[0] or 0)


@pytest.mark.parametrize(
    ("sent", "status", "path"),
    [
        (b"no http\r\n\r\n", 400, "none"),
        (b"GET /process HTTP/1.1\r\nHost: te", 408, "none"),
        (UPLOAD, 408, "/body"),
        (head("/process", X="x" * 70_000), 431, "none"),
        (head("/made-up"), 404, "none"),
        (head("/process"), 200, "/process"),
    ],
)
def test_every_answer_is_counted_once_whoever_gives_it(server, sent, status, path):
    before = counted(server, status, path)
    with server.connect() as client:
        assert client.send(sent).answer().status == status
    # The application may learn a little later that the connection has answered for it.
    assert any(counted(server, status, path) == before + 1 for _ in range(100))


class Written(asyncio.Transport):
    """What a connection writes, and whether it reads; the other end is not there."""

    def __init__(self):
        super().__init__()
        self.parts, self.reading = [], True

    def write(self, data):
        self.parts.append(bytes(data))

    def is_closing(self):
        return False

    def close(self):
        pass

    write_eof = abort = close

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


def connection(answer, **settings):
    """A connection to an application whose answer is `answer(message)`; run it in an event loop."""
    config = uvicorn.Config(answer, interface="asgi3", proxy_headers=False, ws="none")
    config.load()
    transport = Written()
    made = Connection(Settings(**settings), config=config, server_state=ServerState(), app_state={})
    made.connection_made(transport)
    return made, transport


def in_progress():
    return REGISTRY.get_sample_value("serving_requests_in_progress")


@pytest.mark.parametrize("error", [None, ValueError("a bug")])
def test_a_request_is_in_progress_until_its_answer(error):
    async def app(scope, receive, send):
        during.append(in_progress())
        if error:
            raise error
        await Response(b"x")(scope, receive, send)

    async def main():
        made, _ = connection(app)
        made.data_received(head("/"))
        await made.tasks.copy().pop()

    before = in_progress()
    during: list[float] = []
    asyncio.run(main())
    assert (during, in_progress()) == ([before + 1], before)


def sending(size):
    async def app(scope, receive, send):
        await Response(bytes(size))(scope, receive, send)

    return app


@pytest.mark.parametrize(
    ("method", "size", "writes"), [("GET", 10, 1), ("GET", 0, 1), ("GET", COPIED_BYTES + 1, 2), ("HEAD", 10, 1)]
)
def test_the_head_of_an_answer_is_written_with_its_body(method, size, writes):
    async def main():
        made, transport = connection(sending(size))
        made.data_received(head("/", method))
        await made.tasks.copy().pop()
        return transport.parts

    parts = asyncio.run(main())
    assert len(parts) == writes
    got, _, body = b"".join(parts).partition(b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200") and body == (b"" if method == "HEAD" else bytes(size))


def test_what_one_read_brings_does_not_stop_the_reading():
    async def app(scope, receive, send):
        await asyncio.Future()

    async def main():
        made, transport = connection(app)
        made.data_received(head("/", "POST", Content_Length=2 * BODY_BYTES) + bytes(BODY_BYTES))
        before = transport.reading
        made.data_received(b"x")
        for task in made.tasks.copy():
            task.cancel()
        return before, transport.reading

    assert asyncio.run(main()) == (True, False)


@pytest.mark.parametrize(("count", "sent"), [(1, True), (2, False)], ids=["answered", "ended"])
def test_an_answer_that_has_no_room_is_recorded_as_refused(count, sent):
    """A request that came ahead of another's answer has no answer of its own; the connection ends."""
    records = []
    small = {"body_bytes": 100_000, "buffered_bytes": 100_000}

    async def main():
        answer = recorded(sending(100_001), (lambda scope, record: records.append(record),))
        made, transport = connection(answer, **small)
        made.data_received(head("/") * count)
        await made.tasks.copy().pop()
        return b"".join(transport.parts)

    def refused():
        return REGISTRY.get_sample_value("serving_requests_total", {"path": "none", "status": "413"}) or 0

    before = refused()
    written = asyncio.run(main())
    assert records[0].status == 413 and refused() > before
    if sent:
        got, _, body = written.partition(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 413") and records[0].sent == len(body)
    else:
        assert records[0].sent == 0
