"""The variables that begin with SERVING_: settings, what Kubernetes injects, and what is mistyped."""

import pytest

from onnx_release.core.errors import ParameterError
from serving.__main__ import PARSER, read_settings
from serving.settings import Settings

# What a pod gets for the Services `serving` (a port without a name), `serving-web` (port http) and `serving-metrics`.
KUBERNETES = {
    "SERVING_SERVICE_HOST": "10.0.0.11",
    "SERVING_SERVICE_PORT": "80",
    "SERVING_PORT": "tcp://10.0.0.11:80",
    "SERVING_PORT_80_TCP": "tcp://10.0.0.11:80",
    "SERVING_PORT_80_TCP_PROTO": "tcp",
    "SERVING_PORT_80_TCP_PORT": "80",
    "SERVING_PORT_80_TCP_ADDR": "10.0.0.11",
    "SERVING_WEB_SERVICE_HOST": "10.0.0.12",
    "SERVING_WEB_SERVICE_PORT": "8000",
    "SERVING_WEB_SERVICE_PORT_HTTP": "8000",
    "SERVING_WEB_PORT": "udp://[fd00::12]:8000",
    "SERVING_WEB_PORT_8000_UDP_ADDR": "fd00::12",
    "SERVING_METRICS_PORT": "tcp://10.0.0.13:9090",
}


def settings(*arguments: str) -> Settings:
    return read_settings(PARSER.parse_args(arguments))


def test_what_kubernetes_injects_for_a_service_called_serving_changes_nothing(monkeypatch):
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert settings() == Settings.model_construct()
    assert settings("--port", "80") == Settings.model_construct(port=80)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SERVING_MAX_BACTH", "8", "did you mean SERVING_MAX_BATCH?"),
        ("serving_thread", "8", "SERVING_THREAD is no setting: did you mean SERVING_THREADS?"),
        ("SERVING_ZZZ", "8", "`python -m serving --help` lists all settings"),
        ("SERVING_SERVICE_HOSTS", "10.0.0.1", "SERVING_SERVICE_HOSTS is no setting"),
        ("SERVING_PORT_80", "tcp://10.0.0.1:80", "did you mean SERVING_PORT?"),
        ("SERVING_PORT", "tcp://10.0.0.1", "--port or SERVING_PORT: Input should be a valid integer"),
        ("SERVING_PORT", "http://10.0.0.1:80", "--port or SERVING_PORT: Input should be a valid integer"),
        ("SERVING_ALLOWED_HOSTS", "https://a.example", "'https://a.example' is no host"),
        ("SERVING_CORS_ORIGINS", "https://a.example,b.example", "'b.example' is no origin"),
        ("SERVING_OTLP_ENDPOINT", "collector:4318", "--otlp-endpoint or SERVING_OTLP_ENDPOINT"),
    ],
)
def test_a_variable_that_is_mistyped_or_wrong_is_an_error(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ParameterError) as raised:
        settings()
    assert message in str(raised.value)


def test_all_mistyped_variables_are_named_at_once(monkeypatch):
    monkeypatch.setenv("SERVING_MAX_BACTH", "8")
    monkeypatch.setenv("SERVING_HOSTS", "0.0.0.0")
    with pytest.raises(ParameterError, match=r"(?s)MAX_BATCH\?.*SERVING_HOST\?|SERVING_HOST\?.*MAX_BATCH\?"):
        settings()


def test_switches_are_flags_and_words(monkeypatch):
    monkeypatch.setenv("SERVING_PAGE", "false")
    found = settings("--log-requests", "--no-docs")
    assert (found.log_requests, found.docs, found.page, found.metrics) == (True, False, False, True)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "umlaut-ä"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_printed(monkeypatch, token):
    monkeypatch.setenv("SERVING_TOKEN", token)
    with pytest.raises(ParameterError) as raised:
        settings()
    assert "--token or SERVING_TOKEN: Value error, a token is letters" in str(raised.value)
    assert not token or token not in str(raised.value)


def test_a_token_on_the_command_line_is_refused_and_not_printed():
    with pytest.raises(ParameterError, match="SERVING_TOKEN") as raised:
        settings("--token", "c2VjcmV0")
    assert "c2VjcmV0" not in str(raised.value)
