"""What the server's OpenAPI allows and what it does not, sent by a fuzzer: no 500, nothing that is not declared."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema_rs import validator_for

from tests.picture_release import colours_release, digits_release, lengths_release, spots_release
from tests.served import PATIENCE, serving

RELEASES: dict[str, Callable[[Path], Path]] = {
    "classification": colours_release,
    "detection": spots_release,
    "embedding": lengths_release,
    "no uploads": digits_release,
}


@pytest.fixture(scope="module", params=RELEASES)
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(RELEASES[request.param](tmp_path_factory.mktemp("release")), body_bytes=1_000_000) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_every_request_is_answered_as_declared_and_what_is_forbidden_is_refused(address: str) -> None:
    import schemathesis  # takes seconds, and every process of the tests imports this file
    from hypothesis import given, settings
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # All checks but one, since no schema says which bytes are a picture, or how many numbers a shape has.
    options: dict[str, Any] = {"excluded_checks": [positive_data_acceptance], "timeout": PATIENCE}
    openapi: Any = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in openapi.get_all_operations()]
    assert len(operations) >= 18
    for operation, mode in itertools.product(operations, GenerationMode):
        if mode == GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        @settings(max_examples=15, deadline=None, derandomize=True, database=None)
        @given(case=operation.as_strategy(mode))
        def answered(case: Any) -> None:
            case.call_and_validate(**options)

        answered()


def examples(address: str) -> Iterator[tuple[str, Any, Any]]:
    """The URL of each example of a JSON body, the body's schema, and the example."""
    paths = requests.get(f"{address}/openapi.json", timeout=PATIENCE).json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            names = {found["name"]: found["schema"].get("examples", [""])[0] for found in parameters}
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                yield address + path.format(**names), content["schema"], example["value"]


def test_every_example_is_accepted(address: str) -> None:
    posted = set()
    for url, _, value in examples(address):
        answer = requests.post(url, json=value, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        posted.add("/".join(url.split("/")[-2:]))
    assert {"1/infer", "repository/index"} < posted and len(posted) == 3  # of /infer with and without a version


def test_an_example_with_one_mistake_is_refused(address: str) -> None:
    tried = 0
    with requests.Session() as session:
        for url, schema, value in examples(address):
            validator = validator_for(schema)
            for changed in mistakes(value):
                if not validator.is_valid(changed):
                    answer = session.post(url, json.dumps(changed), timeout=PATIENCE)
                    assert 400 <= answer.status_code < 500, (changed, answer.text)
                    tried += 1
    assert tried > 100


def mistakes(value: Any) -> Iterator[Any]:
    """The value with one part replaced, or left out; of a list only the first item."""
    yield from (None, True, -1, 1.5, "x", [], {}, [{}])
    if isinstance(value, dict):
        for key, part in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: changed} for changed in mistakes(part))
    if isinstance(value, list) and value:
        yield value[1:]
        yield [*value, value[0]]
        yield from ([changed, *value[1:]] for changed in mistakes(value[0]))
