"""Read the JSON of a request in short steps: a parser's call holds Python's lock, and with it every other request.

64 kB of JSON take less than a millisecond, 40 MB of small objects ten seconds. Only the data of a tensor may be long.
So it is cut out of the text before that is parsed, and read piece by piece.
"""

import math
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.errors import RequestError, check_deadline

PIECE = 65_536  # bytes that are parsed in one call
COUNTED = 1_000_000  # bytes that are counted in one call
NUMBER = 4_096  # a number with the white space around it has at most as many bytes
ROW = 8_192  # elements of an output that are written in one call

KEY = b'"data"'
START = re.compile(rb'"data"[ \t\r\n]{0,64}:[ \t\r\n]{0,64}\[')
WHITE = b" \t\r\n"
# All but lists, their commas and white space becomes 0, so that what is left is the nesting of the data.
ZEROS = bytes(sign if chr(sign) in "[],\t\r\n " else ord("0") for sign in range(256))


class DataText(NamedTuple):
    """The list of numbers or booleans between two places of a request's JSON, brackets included."""

    text: bytes
    start: int
    stop: int


class ShortJson(NamedTuple):
    """A request's JSON without its long data: `data` has it, by the strings that stand in its place."""

    value: Any
    data: dict[str, DataText]


def parse_short(text: bytes, most: int) -> ShortJson:
    """Parse JSON of any length, but for the lists of numbers under `data`, which are cut out if it is long.

    Raises RequestError: 413 if the rest has more than `most` bytes, 400 if it is not JSON. orjson bounds its depth.
    """
    short, data = (text, {}) if len(text) <= PIECE else cut_data(text, most)
    try:
        return ShortJson(loads(short), data)
    except orjson.JSONDecodeError as error:
        reason = str(error) if short is text else f"{error.msg} beside its data"
        raise not_json(reason, short) from error


def loads(text: bytes) -> Any:
    """Parse JSON. Raises orjson.JSONDecodeError.

    orjson 3.13.0 takes a text that begins with a bracket and two spaces for one with all its values on lines of their
    own, makes room for so many, and refuses one that has more. Without these spaces it takes both.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        start = text.lstrip(WHITE)
        trimmed = start[:1] + start[1:].lstrip(WHITE)
        if trimmed == start:
            raise
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(trimmed)
        raise


def not_json(reason: str, text: bytes) -> RequestError:
    infinite = b"Infinity" in text or "infinity" in reason  # the second of 1e400
    hint = "; JSON has no Infinity: send the input as binary data" if infinite else ""
    hint = hint or ("; NaN is not JSON, nor taken in binary data" if b"NaN" in text else "")
    return RequestError(400, f"the request is not JSON: {reason}{hint}")


def cut_data(text: bytes, most: int) -> tuple[bytes, dict[str, DataText]]:
    """Return the text with a string in place of each list of data, and the lists by these strings.

    It looks no further than `most` bytes of the text that stays. Inside of a string every quote follows a backslash, so
    `"data"` without one in front is a key or a whole string.
    """
    secret = secrets.token_hex(8)  # a client cannot know these strings, and send one
    kept: list[bytes] = []
    data: dict[str, DataText] = {}
    place = size = 0
    search = 0
    while (found := text.find(KEY, search, place + most - size + 1)) >= 0:
        search = found + len(KEY)
        start = START.match(text, found)
        stop = start and text[found - 1 : found] != b"\\" and end_of_numbers(text, start.end())
        if not (start and stop):
            continue
        name = f"data {len(data)} {secret}"
        kept += [text[place : start.end() - 1], b'"%s"' % name.encode()]
        size += len(kept[-2]) + len(kept[-1])
        data[name] = DataText(text, start.end() - 1, stop)
        place = search = stop
    size += len(text) - place
    if size > most:
        raise RequestError(
            413, f"the JSON has more than {most:,} bytes besides the numbers in data, and no request needs as many"
        )
    return b"".join([*kept, text[place:]]), data


def end_of_numbers(text: bytes, start: int) -> int | None:
    """Return the end of the list that is open at `start`, or None if it has strings or objects, or does not end."""
    stop = text.find(b'"', start)
    stop = len(text) if stop < 0 else stop
    for sign in (b"}", b"{"):
        found = text.find(sign, start, stop)
        stop = stop if found < 0 else found
    end = text.rfind(b"]", start, stop) + 1
    # The data is followed by the next key, or by the end of its object.
    between = text[end : min(stop, end + NUMBER)].strip(WHITE)
    return end if end and between == (b"," if text[stop : stop + 1] == b'"' else b"") else None


def read_numbers(name: str, shape: list[int], data: DataText, deadline: float) -> Iterator[list[Any]]:
    """Yield the elements of the data in their order, in lists. The data is flat, or nested like the shape.

    Raises RequestError (400) for another number of elements or nesting, and for what is not JSON, and DeadlineError
    once time.monotonic() is past `deadline`.
    """
    elements = math.prod(shape)
    found = count(data, b",") + 1
    if found != elements:
        raise RequestError(400, f"{name} has {found} elements where the shape {shape} has {elements}")
    nested = count(data, b"[") > 1
    expected, place, read = nesting(shape if nested else [elements]), 0, 0
    for piece in pieces(name, data):
        check_deadline(deadline)
        plain = piece.translate(ZEROS, WHITE)
        structure = plain.translate(None, b"0")
        # Between two pieces there is a comma.
        fits = structure == expected[place : place + len(structure)] and expected[place - 1 : place] in (b"", b",")
        if not fits or (nested and (b"0[" in plain or b"]0" in plain)):
            raise RequestError(400, f"the lists in the data of {name} are not nested as the shape {shape}")
        place += len(structure) + 1
        try:
            values = orjson.loads(b"[%s]" % piece.translate(None, b"[]").lstrip(WHITE))
        except orjson.JSONDecodeError as error:
            raise not_json(f"{error.msg}, in the data of {name}", piece) from error
        read += len(values)
        yield values
    if (place - 1, read) != (len(expected), elements):
        raise not_json(f"a comma or a bracket too many, in the data of {name}", b"")


def pieces(name: str, data: DataText) -> Iterator[bytes]:
    """Yield the text in pieces of about PIECE bytes, without the commas between them."""
    text, place, end = data
    while end - place > PIECE + NUMBER:
        comma = text.find(b",", place + PIECE, place + PIECE + NUMBER)
        if comma < 0:
            raise RequestError(400, f"the data of {name} has more than {NUMBER} bytes between two commas")
        yield text[place:comma]
        place = comma + 1
    yield text[place:end]


def count(data: DataText, sign: bytes) -> int:
    text, start, stop = data
    return sum(text.count(sign, place, min(place + COUNTED, stop)) for place in range(start, stop, COUNTED))


def nesting(shape: list[int]) -> bytes:
    """Return the brackets and commas of nested lists of this shape, without the elements."""
    written = b""
    for size in reversed(shape):
        written = b"[%s%s]" % (written, (b"," + written) * (size - 1))  # repeating is much faster than joining
    return written


def write_numbers(array: np.ndarray) -> orjson.Fragment:
    """Return the elements of an array as a JSON list, row-major, for orjson to put into its place."""
    flat = array.ravel()
    parts = (flat[place : place + ROW] for place in range(0, len(flat), ROW))
    written = (orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for part in parts)
    return orjson.Fragment(b"[%s]" % b",".join(written))
