"""What the tests of the review share."""

import pytest

from onnx_release.timing import speedup


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a tenth of the time for an interval of the harness; there are thousands here."""
    monkeypatch.setattr(speedup, "RESAMPLES", 100)
