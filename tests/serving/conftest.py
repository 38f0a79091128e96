"""A release that several files of tests start, and none of them changes."""

from pathlib import Path

import pytest

from tests.picture_release import lengths_release


@pytest.fixture(scope="session")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts: the sum of their characters' numbers."""
    return lengths_release(tmp_path_factory.mktemp("lengths"))
