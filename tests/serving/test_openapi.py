"""What the server's OpenAPI allows and what it does not, sent by a fuzzer: no 500, no answer that is not declared."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.picture_release import colours_release, digits_release, lengths_release, spots_release
from tests.served import PATIENCE, serving

RELEASES: dict[str, Callable[[Path], Path]] = {
    "classification": colours_release,
    "detection": spots_release,
    "embedding": lengths_release,
    "no uploads": digits_release,
}


@pytest.fixture(scope="module", params=RELEASES)
def openapi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import schemathesis  # takes seconds, and every process of the tests imports this file

    with serving(RELEASES[request.param](tmp_path_factory.mktemp("release")), body_bytes=1_000_000) as server:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def test_every_request_is_answered_as_declared(openapi: Any) -> None:
    from hypothesis import given, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    conforms = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
    operations = [found.ok() for found in openapi.get_all_operations()]
    assert len(operations) >= 10
    for operation, mode in itertools.product(operations, GenerationMode):
        if mode == GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing of it can be wrong

        @settings(max_examples=15, deadline=None, derandomize=True, database=None)
        @given(case=operation.as_strategy(mode))
        def answered(case: Any) -> None:
            case.call_and_validate(checks=[not_a_server_error, *conforms], timeout=PATIENCE)

        answered()
