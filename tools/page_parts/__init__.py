"""Make the generated parts of README.md and docs/, which `python -m tools.docs` puts into the pages."""

from collections.abc import Callable
from typing import Any

# Gives what is in a file by its path: parsed if it is JSON, as text otherwise.
Read = Callable[[str], Any]
# Makes the text of one part.
Maker = Callable[[Read], str]
