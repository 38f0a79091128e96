"""The files in a multipart body, and what is no such body."""

import asyncio

import pytest
from multipart import PushMultipartParser
from starlette.requests import Request

from serving.body import parse_files, request_body
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError
from serving.memory import memory
from serving.settings import Settings

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PHOTO = bytes(range(256)) * 40 + f"--{BOUNDARY}\r\n--{BOUNDARY[:-1]}\r\n--\r\n".encode()  # the like of a boundary


def part(content, filename=None, name="file", headers=""):
    shown = f'; filename="{filename}"' if filename is not None else ""
    disposition = f'Content-Disposition: form-data; name="{name}"{shown}\r\n{headers}\r\n'
    return f"--{BOUNDARY}\r\n".encode() + disposition.encode() + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def parse(body, content_type=FORM, **settings):
    return parse_files(content_type, body, Settings(**settings))


def test_parts_with_a_filename_are_uploads_in_their_order():
    body = form(
        part(PHOTO, "a.jpg", headers="Content-Type: image/jpeg\r\n"),
        part(b"5", name="top"),
        part(b"\x00", 'quote\\"d.png', name="second"),
        part(b"\r\n", "käse.jpg"),
        part(b"", "", name="nothing chosen"),
    )
    assert parse(body) == [("a.jpg", PHOTO), ('quote"d.png', b"\x00"), ("käse.jpg", b"\r\n")]


@pytest.mark.parametrize(
    "content_type", [FORM.replace(BOUNDARY, f'"{BOUNDARY}"; charset=utf-8'), FORM.title()[:19] + FORM[19:]]
)
def test_content_types_are_read_as_http_writes_them(content_type):
    assert parse(form(part(b"1", "a.jpg")), content_type) == [("a.jpg", b"1")]


WHOLE = form(part(PHOTO, "a.jpg"))


@pytest.mark.parametrize(
    ("body", "content_type", "status", "text"),
    [
        (WHOLE, "", 415, "'missing'.*curl -F file=@photo.jpg"),
        (WHOLE, "image/jpeg", 415, "'image/jpeg'.*curl -F file=@photo.jpg"),
        (WHOLE, "multipart/form-data", 400, "no boundary"),
        (WHOLE, "multipart/form-data; boundary=", 400, "no boundary"),
        (WHOLE, "multipart/form-data; boundary=" + "x" * 300, 400, "malformed"),
        (WHOLE, FORM + "x", 400, "malformed"),
        (WHOLE[:-30], FORM, 400, "truncated"),
        (WHOLE[:5000], FORM, 400, "truncated"),
        (WHOLE[:50], FORM, 400, "truncated"),
        (WHOLE[:2], FORM, 400, "truncated"),
        (PHOTO, FORM, 400, "malformed"),
        (WHOLE[: WHOLE.index(PHOTO)] + f"\r\n--{BOUNDARY}x1".encode(), FORM, 400, "malformed"),
        (form(part(b"1", "a.jpg").replace(b"form-data", b"attachment")), FORM, 400, "malformed"),
        (form(part(b"1", "a.jpg", headers="no colon\r\n")), FORM, 400, "malformed"),
        (form(part(b"1", "a.jpg", headers="X: y\r\n" * 20)), FORM, 400, "malformed"),
        (form(part(b"1", "a.jpg", headers=f"X: {'y' * 9000}\r\n")), FORM, 400, "malformed"),
        (form(), FORM, 400, "no part"),
        (form(part(b"1")), FORM, 400, "no part.*filename"),
        (form(part(b"", "")), FORM, 400, "no part.*filename"),
        (form(part(b"", "a.jpg")), FORM, 422, "'a.jpg' is empty"),
    ],
)
def test_what_is_no_body_with_files_is_refused(body, content_type, status, text):
    with pytest.raises(RequestError, match=text) as raised:
        parse(body, content_type)
    assert raised.value.status == status


def test_limits_are_of_each_file_and_of_how_many():
    body = form(part(b"1" * 10, "a.jpg"), part(b"2" * 11, "b.jpg"))
    assert len(parse(body, upload_bytes=11, files=2)) == 2
    for settings, text in ({"upload_bytes": 10}, "'b.jpg' has more than 10 bytes"), ({"files": 1}, "more than 1 file:"):
        with pytest.raises(RequestError, match=text) as raised:
            parse(body, **settings)
        assert raised.value.status == 413
    with pytest.raises(RequestError, match="parts") as raised:
        parse(form(*[part(b"1")] * 100))
    assert raised.value.status == 413


def test_a_long_form_is_parsed_in_pieces(monkeypatch):
    contents = [bytes([n]) * size for n, size in enumerate((700_000, 131_072, 1, 300_001))]
    body = form(*(part(content, f"{n}.jpg") for n, content in enumerate(contents)), part(b"x" * 400_000))
    sizes, parse_one = [], PushMultipartParser.parse

    def noting(parser, piece):
        sizes.append(len(piece))
        return parse_one(parser, piece)

    monkeypatch.setattr(PushMultipartParser, "parse", noting)
    assert [upload.content for upload in parse(body)] == contents
    assert max(sizes) < 200_000


def test_a_form_is_parsed_until_the_deadline():
    body = form(part(bytes(300_000), "a.jpg"))
    with pytest.raises(DeadlineError):
        parse_files(FORM, body, Settings(), deadline=0)


def test_a_file_that_is_too_large_is_refused_at_its_limit():
    with pytest.raises(RequestError, match=r"'a\.jpg' has more than 200,000 bytes"):
        parse(part(bytes(500_000), "a.jpg"), upload_bytes=200_000)  # its end is not looked for


def read(chunks, settings, headers=(), fails=None):
    """Read a body that comes in `chunks`; what is counted is given back whatever happens."""
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks[:-1]]
    last = chunks[-1]
    waiting.append({"type": "http.disconnect"} if last is None else {"type": "http.request", "body": last})

    async def receive():
        return waiting.pop(0)

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": list(headers)}, receive)

    async def run():
        async with request_body(request, settings) as body:
            assert memory.used == len(body)
            if fails:
                raise fails
            return body

    try:
        return asyncio.run(run())
    finally:
        assert memory.used == 0


def test_a_body_is_joined_and_counted_while_it_is_worked_on():
    assert read([b"01", b"", b"234", b""], Settings(body_bytes=5)) == b"01234"


@pytest.mark.parametrize(
    ("chunks", "headers", "settings", "error"),
    [
        ([b"01234", b"5", b""], [], {"body_bytes": 5}, RequestError),
        ([], [(b"content-length", b"6")], {"body_bytes": 5}, RequestError),
        ([b""], [], {}, RequestError),
        ([b"01", None], [], {}, ClientGoneError),
    ],
)
def test_what_is_counted_is_given_back_whatever_happens(chunks, headers, settings, error):
    with pytest.raises(error):
        read(chunks or [b"unread", b""], Settings(**settings), headers)


def test_all_bodies_together_are_limited():
    settings = Settings(body_bytes=5, buffered_bytes=5)

    async def receive():
        return {"type": "http.request", "body": b"012"}

    async def run():
        scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
        async with request_body(Request(scope, receive), settings):
            with pytest.raises(BusyError):
                async with request_body(Request(scope, receive), settings):
                    pass

    asyncio.run(run())
    assert memory.used == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_and_when_the_work_on_it_fails(error):
    with pytest.raises(error):
        read([b"01"], Settings(), fails=error())
