"""The rules for Prometheus: of metrics that there are, right to promtool, vmalert and their unit tests."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.paths import ROOT

FOLDER = ROOT / "packaging" / "prometheus"
RULES = FOLDER / "tsmon.rules.yml"
UNIT_TESTS = sorted((ROOT / "tests" / "deploy" / "rules").glob("*.test.yml"))
METRICS = set(re.findall(r"^\| `(tsmon_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def run(program: str, *arguments: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"SKIPPED LOUDLY: no {program} (Debian: prometheus, victoria-metrics): it read no rule")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_ask_for_metrics_and_records_that_there_are() -> None:
    records = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        assert set(re.findall(r"\btsmon_\w+", rule["expr"])) <= METRICS, rule
        assert set(re.findall(r"\btsmon:[\w:]+", rule["expr"])) <= records, rule


def test_every_alert_says_what_is_wrong_and_is_unit_tested() -> None:
    tested = {
        case["alertname"]
        for path in UNIT_TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case.get("exp_alerts")
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == tested
    for rule in alerts:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_every_series_is_asked_for_by_its_job() -> None:
    """Another program's metrics may be called alike; what is recorded stands for the job already."""
    for rule in rules():
        for name, selector in re.findall(r"\b(tsmon_\w+|up)\b(\{[^}]*\})?", rule["expr"]):
            assert 'job="tsmon"' in selector, (name, rule)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_what_they_conclude(path: Path) -> None:
    run("promtool", "test", "rules", str(path))


def test_promtool_takes_the_example_and_its_rules() -> None:
    run("promtool", "check", "config", str(FOLDER / "prometheus.yml"))


def test_vmalert_takes_the_rules() -> None:
    run("vmalert", f"-rule={RULES}", "-dryRun")


def test_victoriametrics_takes_the_example() -> None:
    """What is Prometheus' alone in it (rules, Alertmanagers) it leaves to vmalert."""
    strict = "-promscrape.config.strictParse=false"
    run("victoria-metrics", f"-promscrape.config={FOLDER / 'prometheus.yml'}", strict, "-dryRun")


def test_amtool_takes_the_example_of_alertmanager() -> None:
    run("amtool", "check-config", str(ROOT / "packaging" / "alertmanager" / "alertmanager.yml"))
