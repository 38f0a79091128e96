"""Advise to try the other exporter, and take the advice back where it was tried too."""

from collections.abc import Iterable


def or_try(exporter: str) -> str:
    """Return the end of a sentence that advises to try this exporter."""
    return f", or try export.exporter={exporter}"


def without_advice(message: str, tried: Iterable[str]) -> str:
    """Return the message without the advice to try one of the exporters that were tried."""
    for exporter in tried:
        message = message.replace(or_try(exporter), "")
    return message
