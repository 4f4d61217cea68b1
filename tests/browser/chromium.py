"""Chromium and axe-core as the browser tests find them, and what every one of them knows of the site.

Needs Chromium (`TSMON_TEST_CHROMIUM`, else from PATH), and for the accessibility rules axe-core
(`TSMON_TEST_AXE`: its axe.min.js); skipped loudly when absent.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

CHROMIUM = (
    os.environ.get("TSMON_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
AXE = os.environ.get("TSMON_TEST_AXE", "")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HOSTILE = "<img src=x onerror=alert(1)>"
PROD = "chocolate-factory"

SEEN = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),  # one Chromium for all of them
    pytest.mark.skipif(CHROMIUM is None, reason="SKIPPED LOUDLY: no Chromium, the dashboard was not seen"),
]
AXE_RUNS = pytest.mark.skipif(
    not AXE, reason="SKIPPED LOUDLY: no TSMON_TEST_AXE: the accessibility rules were not run"
)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


async def _bring_axe(page: Page) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(Path(AXE).read_text())


async def broken_rules(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds wrong with the page as it stands: rules, each with its first offenders."""
    await _bring_axe(page)
    found: dict[str, Any] = await page.evaluate("tags => axe.run({runOnly: tags})", list(RULES))
    return [(rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in found["violations"]]


async def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    over: int = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return over


async def poor_contrast(page: Page, selector: str) -> list[str]:
    """What axe-core finds too faint in one element as it stands."""
    await _bring_axe(page)
    run = "where => axe.run(where, {runOnly: ['color-contrast', 'link-in-text-block']})"
    found: dict[str, Any] = await page.evaluate(run, selector)
    return [node["failureSummary"] for rule in found["violations"] for node in rule["nodes"]]
