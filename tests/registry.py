"""Where pip takes packages from, for uv, which does not read pip's settings."""

import re
import subprocess
import sys


def registry() -> dict[str, str]:
    """Return the environment variables with which uv asks the registry that pip asks."""
    listed = [sys.executable, "-m", "pip", "config", "list"]
    settings = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    wanted = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    found = re.findall(r"^(?:global|user|site|install|:env:)\.(index-url|cert)='(.*)'$", settings, re.MULTILINE)
    return {wanted[key]: value for key, value in found}
