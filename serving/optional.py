"""Import packages that a release does not need unless a setting asks for them."""

import importlib
from typing import Any

from onnx_release.core.errors import ParameterError


def optional_modules(option: str, install: str, *names: str) -> list[Any]:
    """Import the modules of these names. Raises ParameterError with the option that wants them, and what installs them.

    They are imported by name, since a release's requirements are made of its import statements.
    """
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as cause:
        raise ParameterError(f"{option} needs packages that are not installed ({cause}): {install}") from cause
