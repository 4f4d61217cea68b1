"""The Helm chart is the Kubernetes manifest with values: rendered with the defaults, the same objects."""

import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # no stubs in the lock

from tests.support.paths import ROOT

CHART = ROOT / "packaging" / "helm" / "tsmon"
HELM = shutil.which("helm", path=os.pathsep.join((os.environ.get("TSMON_E2E_BIN", ""), os.environ["PATH"])))

pytestmark = pytest.mark.skipif(
    HELM is None,
    reason="SKIPPED LOUDLY: no helm on PATH or in TSMON_E2E_BIN: the chart is not rendered",
)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, check=False)


def rendered(*values: str, release: str = "tsmon") -> dict[str, Any]:
    sets = [word for value in values for word in ("--set", value)]
    run = helm("template", release, str(CHART), "--namespace", "tsmon", *sets)
    assert run.returncode == 0, run.stderr
    return {found["kind"]: found for found in yaml.safe_load_all(run.stdout)}


def test_lint_finds_nothing() -> None:
    run = helm("lint", "--strict", str(CHART), "--set", "image=tsmon")
    assert run.returncode == 0, run.stdout


def test_with_the_defaults_it_is_the_manifest() -> None:
    text = (ROOT / "packaging" / "kubernetes" / "tsmon.yaml").read_text()
    manifest = {found["kind"]: found for found in yaml.safe_load_all(text)}
    made = rendered("image=tsmon")
    containers = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    extra = {"name": "TS_EXTRA_ARGS", "value": ""}
    assert extra in containers[0]["env"]
    containers[0]["env"].remove(extra)
    assert made == manifest


def test_without_an_image_it_says_so() -> None:
    run = helm("template", "x", str(CHART))
    assert run.returncode != 0
    assert "image: name yours" in run.stderr


def test_values_reach_the_objects() -> None:
    made = rendered(
        "image=r.example/tsmon:1", "settings.TSMON_MONITOR=here", "allowedHosts={a.example}", release="watch"
    )
    (_, tsmon) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    environ = {entry["name"]: entry.get("value") for entry in tsmon["env"]}
    assert tsmon["image"] == "r.example/tsmon:1"
    assert environ["TSMON_MONITOR"] == "here"
    assert environ["TSMON_ALLOWED_HOSTS"].startswith("watch,watch.tsmon,")
    assert environ["TSMON_ALLOWED_HOSTS"].endswith(",a.example")
    assert made["Service"]["spec"]["selector"] == {"app": "watch"}
