"""The manifests in deploy/: valid by the schemas of what reads them, and in keeping with the server's settings."""

import re
import runpy
from types import SimpleNamespace
from typing import Any, cast

import kubernetes_validate
import pytest
from fastapi.routing import APIRoute
from ruamel.yaml import YAML

from benchmarks.memory_bound import memory_bound
from onnx_release.core.spec import load_spec
from onnx_release.runtime.release import Release
from serving import metrics, v2
from serving.settings import Settings
from tests.imports import ROOT

FOLDER = ROOT / "deploy"
OBJECTS = list(YAML(typ="safe").load_all(FOLDER / "kubernetes.yaml"))
KINDS: dict[str, dict[str, Any]] = {item["kind"]: item for item in OBJECTS}
POD = KINDS["Deployment"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
NEEDS = "ray.serve imports grpc and grpc_reflection: pip install grpcio grpcio-reflection, or ray[serve]"
RAY: dict[str, Any] = YAML(typ="safe").load(FOLDER / "ray_serve.yaml")


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the server makes of these variables, each of which must be one of its settings."""
    names = {f"SERVING_{name.upper()}" for name in Settings.model_fields}
    assert set(environment) <= names
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_of({variable["name"]: variable["value"] for variable in CONTAINER["env"]}, monkeypatch)


@pytest.mark.parametrize("item", OBJECTS, ids=list(KINDS))
def test_kubernetes_takes_it(item):
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(item, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # a misspelt key is found
        kubernetes_validate.validate({**item, "spec": {**item["spec"], "replica": 1}}, version, strict=True)


def test_all_objects_are_of_the_same_pods():
    labels = KINDS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert set(KINDS) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert KINDS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    assert KINDS["Service"]["spec"]["selector"] == labels
    assert KINDS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = KINDS["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == KINDS["Deployment"]["metadata"]["name"]
    assert KINDS["PodDisruptionBudget"]["spec"]["minAvailable"] < scaled["minReplicas"]  # or no node could be drained


def test_ports_are_the_servers(settings):
    (port,) = CONTAINER["ports"]
    assert settings.host == "0.0.0.0" and settings.port == port["containerPort"]
    assert {probe["httpGet"]["port"] for probe in probes().values()} == {port["name"]}
    assert [item["targetPort"] for item in KINDS["Service"]["spec"]["ports"]] == [port["name"]]
    scraped = KINDS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(settings.port)


def test_probes_and_prometheus_ask_for_what_the_server_answers():
    release = cast(Release, SimpleNamespace(manifest=SimpleNamespace(model="digits_cnn"), spec=load_spec("digits_cnn")))
    routes = (*v2.v2_router(release).routes, *metrics.router.routes)
    served = {route.path for route in routes if isinstance(route, APIRoute)}
    scraped = KINDS["Deployment"]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
    assert {scraped, *(probe["httpGet"]["path"] for probe in probes().values())} <= served
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


def probes() -> dict[str, dict[str, Any]]:
    return {name: CONTAINER[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}


def test_a_pod_has_the_time_to_drain_and_the_cores_for_its_threads(settings):
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= wait + settings.drain + 5
    readiness = CONTAINER["readinessProbe"]
    assert wait >= readiness["periodSeconds"]
    resources = CONTAINER["resources"]
    assert resources["limits"] == resources["requests"]
    assert int(resources["limits"]["cpu"]) == settings.threads * settings.workers
    needed = memory_bound(settings, load_spec("mobilenet_v2"))
    assert int(resources["limits"]["memory"].removesuffix("Gi")) * 2**30 >= needed


def test_both_run_the_image_as_its_dockerfile_has_made_it():
    dockerfile = (ROOT / "onnx_release/packaging/templates/Dockerfile").read_text()
    last = dict(re.findall(r"^(\w+) (.*)$", dockerfile, re.MULTILINE))  # of each instruction
    assert str(POD["securityContext"]["runAsUser"]) == last["USER"]
    assert RAY["applications"][0]["runtime_env"]["working_dir"] == f"local://{last['WORKDIR']}"
    assert str(CONTAINER["ports"][0]["containerPort"]) == last["EXPOSE"]


def test_the_container_may_do_nothing_but_serve():
    assert POD["securityContext"]["runAsNonRoot"] and POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_ray_serve_takes_it():
    schema = pytest.importorskip("ray.serve.schema", reason=NEEDS)
    parsed = schema.ServeDeploySchema.model_validate(RAY)
    # It ignores what it does not know: nothing of the file may have been left out.
    kept = parsed.model_dump(exclude_unset=True, mode="json")
    assert missing(RAY, kept) == []


def missing(given: Any, kept: Any, path: str = "") -> list[str]:
    """The keys of `given` that are not in `kept`."""
    if isinstance(given, list):
        return [name for index, item in enumerate(given) for name in missing(item, kept[index], f"{path}[{index}]")]
    if not isinstance(given, dict):
        return []
    absent = [f"{path}.{key}" for key in given if key not in kept]
    return absent + [name for key in given if key in kept for name in missing(given[key], kept[key], f"{path}.{key}")]


def test_the_settings_of_ray_serve_go_together(monkeypatch):
    (application,) = RAY["applications"]
    (deployment,) = application["deployments"]
    settings = settings_of(application["runtime_env"]["env_vars"], monkeypatch)
    assert settings.threads == deployment["ray_actor_options"]["num_cpus"]
    assert deployment["max_ongoing_requests"] == settings.queue


def test_ray_serve_finds_the_application_and_its_deployment():
    serve = pytest.importorskip("ray.serve", reason=NEEDS)
    module, name = RAY["applications"][0]["import_path"].split(":")
    application = runpy.run_path(str(FOLDER / f"{module}.py"))[name]
    assert isinstance(application, serve.Application)
    (deployment,) = RAY["applications"][0]["deployments"]
    assert application._bound_deployment.name == deployment["name"]
