"""Check the environment variables that begin with SERVING_: each is a setting, or one that Kubernetes injects.

For every Service in a pod's namespace Kubernetes sets variables in the manner of Docker links, named after the Service.
A Service called `serving`, or `serving-web`, so sets SERVING_PORT=tcp://10.0.0.1:80, SERVING_SERVICE_HOST and more.
They say where that Service is, not how this server should run.
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from onnx_release.core.errors import ParameterError

PREFIX = "serving_"
# SERVING_SERVICE_HOST, SERVING_SERVICE_PORT, SERVING_SERVICE_PORT_HTTP, SERVING_PORT_80_TCP, SERVING_PORT_80_TCP_ADDR;
# in front of SERVICE and PORT there may be the rest of the Service's name.
INJECTED_NAME = re.compile(
    r"serving(_[a-z0-9_]+)?_(service_host|service_port(_[a-z0-9_]+)?|port_[0-9]+_(tcp|udp|sctp)(_(proto|port|addr))?)"
)
# SERVING_PORT is a setting, too: only the value tells the two apart.
INJECTED_PORT = re.compile(r"serving(_[a-z0-9_]+)?_port")
LINK = re.compile(r"(tcp|udp|sctp)://\S+:[0-9]+")


def serving_variables(environment: Mapping[str, str | None], settings: Iterable[str]) -> dict[str, str | None]:
    """Return the variables of `environment` that set one of `settings`. Their names, as all names here, are lower case.

    Raises ParameterError with every other variable that begins with SERVING_, and the nearest setting's name.
    """
    known = set(settings)
    found: dict[str, str | None] = {}
    problems = []
    for name, value in environment.items():
        setting = name.removeprefix(PREFIX)
        if setting == name or is_injected(name, value or "", known):
            continue
        found[name] = value
        if setting not in known:
            nearest = difflib.get_close_matches(setting, known, 1)
            hint = "`python -m serving --help` lists all settings"
            if nearest:
                hint = f"did you mean SERVING_{nearest[0].upper()}?"
            problems.append(f"  {name.upper()} is no setting: {hint}")
    if problems:
        raise ParameterError("wrong environment variables:\n" + "\n".join(problems))
    return found


def is_injected(name: str, value: str, known: set[str]) -> bool:
    """Return whether Kubernetes has set this variable for a Service."""
    if INJECTED_PORT.fullmatch(name) and LINK.fullmatch(value):
        return True
    return name.removeprefix(PREFIX) not in known and INJECTED_NAME.fullmatch(name) is not None
