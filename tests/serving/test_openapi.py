"""What the server's OpenAPI allows and what it does not, sent by a fuzzer: no 500, nothing that is not declared."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

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


def test_every_example_is_accepted(address: str) -> None:
    paths = requests.get(f"{address}/openapi.json", timeout=PATIENCE).json()["paths"]
    posted = set()
    for path, operations in paths.items():
        for method, operation in operations.items():
            parameters = operation.get("parameters", [])
            names = {found["name"]: found["schema"].get("examples", [""])[0] for found in parameters}
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                url = address + path.format(**names)
                answer = requests.request(method, url, json=example["value"], timeout=PATIENCE)
                assert answer.status_code == 200, answer.text
                posted.add(path)
    model = "/v2/models/{name}"
    assert posted == {"/v2/repository/index", f"{model}/infer", f"{model}/versions/{{version}}/infer"}
