"""The proxy of deploy/Caddyfile, in front of a real server: TLS, what it passes on, and what it keeps to itself."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.settings import Settings
from tests.imports import ROOT
from tests.served import PATIENCE, Server, serving

TOKEN = "c2VjcmV0"
CADDYFILE = ROOT / "deploy/Caddyfile"
CADDY = shutil.which("caddy")
# Where CI is set nothing is skipped: the proxy does not start.
pytestmark = pytest.mark.skipif(CADDY is None and not os.environ.get("CI"), reason="no caddy: apt-get install caddy")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def speaks_tls(port: int, authority: Path) -> bool:
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        try:
            context.wrap_socket(sock, server_hostname="localhost").close()
        except ssl.SSLError as error:
            assert error.reason == "TLSV1_ALERT_INTERNAL_ERROR"
            return False
    return True


@pytest.fixture(scope="module")
def proxied(lengths: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Server]]:
    """The proxy's address and its own authority's certificate, and the server behind it."""
    home = tmp_path_factory.mktemp("caddy")
    token = home / "token"
    token.write_text(TOKEN)
    with serving(lengths, idle=75, allowed_hosts="localhost", token_file=token) as server:
        port = free_port()
        environment = {
            "HTTPS_PORT": str(port),
            "HTTP_PORT": str(free_port()),
            "SERVING_ADDRESS": f"127.0.0.1:{server.port}",
            "HOME": str(home),
            "XDG_DATA_HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "PATH": os.environ["PATH"],
        }
        command = [CADDY or "caddy", "run", "--config", str(CADDYFILE)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "certificate obtained successfully" in line:
                    break
            else:
                raise AssertionError(f"caddy ended with {process.wait()}")
            authority = home / "caddy/pki/authorities/local/root.crt"
            while not speaks_tls(port, authority):  # it uses the certificate a moment after it has said so
                pass
            yield f"https://localhost:{port}", authority, server
        finally:
            process.kill()
            process.communicate()


def test_it_answers_by_tls_and_passes_on_ids_and_the_token(proxied):
    address, authority, _ = proxied
    files = {"file": ("a.txt", b"abc")}
    headers = {"X-Request-ID": "order-17", "Authorization": f"Bearer {TOKEN}"}
    answer = requests.post(f"{address}/predict", files=files, headers=headers, verify=authority, timeout=PATIENCE)
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-17")
    assert answer.json()["predictions"] == [{"vector": [294.0]}]
    refused = requests.post(f"{address}/predict", files=files, verify=authority, timeout=PATIENCE)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_metrics_are_not_for_the_outside(proxied):
    address, authority, server = proxied
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert requests.get(f"{address}/metrics", headers=headers, verify=authority, timeout=PATIENCE).status_code == 404
    inside = requests.get(f"http://localhost:{server.port}/metrics", headers=headers, timeout=PATIENCE)
    assert inside.status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(address, timeout=PATIENCE)  # without its authority, which nobody trusts


def test_its_limits_are_the_server_s():
    text, settings = CADDYFILE.read_text(encoding="utf-8"), Settings.model_fields
    assert f"max_size {settings['body_bytes'].default // 10**6}MB" in text
    [minutes] = re.findall(r"read_body (\d+)m", text)
    slowest = settings["body_bytes"].default / settings["receive_rate"].default
    assert int(minutes) * 60 > settings["receive"].default + slowest
    [kept] = re.findall(r"keepalive (\d+)s", text)
    [idle] = re.findall(r"--idle (\d+)", text)
    assert int(kept) < int(idle)
    [patience] = re.findall(r"response_header_timeout (\d+)s", text)
    assert int(patience) > settings["deadline"].default
