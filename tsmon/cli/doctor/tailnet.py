"""What `tsmon doctor` says of the source and of what it tells."""

import time
from typing import TYPE_CHECKING

from tsmon.base.text import counted
from tsmon.cli.doctor.finding import Finding
from tsmon.config import Settings

if TYPE_CHECKING:
    from tsmon.source import Source
    from tsmon.source.status import Snapshot


async def examine_source(settings: Settings) -> tuple["Snapshot | None", list[Finding]]:
    """Whether the tailnet can be read, and what it says."""
    from tsmon.source import make_source  # noqa: PLC0415 (start-up time)
    from tsmon.source.errors import SourceError  # noqa: PLC0415 (start-up time)
    from tsmon.source.status import BadDocument, Decoder  # noqa: PLC0415 (start-up time)

    source = make_source(settings)
    try:
        begun = time.monotonic()
        raw = await source.status()
        took = time.monotonic() - begun
        snapshot = Decoder(settings.exclude).decode(raw)
    except SourceError as error:
        remedy = "start tailscaled or the sidecar, or name it: --source, docs/configuration.md"
        return None, [Finding("source", "failed", str(error), remedy)]
    except BadDocument as error:
        remedy = "does `tailscale status --json` work on the sidecar's side?"
        return None, [Finding("source", "failed", f"{source.name}: {error}", remedy)]
    else:
        says = f"{source.name}: {len(raw):,} bytes in {took * 1000:.0f} ms, tailscaled {snapshot.version}"
        found = [Finding("source", "ok", says), _examine_trust(snapshot), *_examine_rows(snapshot, settings)]
        found += [await _examine_ping(source, snapshot, settings)]
        found += _examine_checks(source, snapshot, settings)
        if settings.auth.mode == "tailnet":
            found += [await _examine_whois(source, snapshot)]
        return snapshot, found
    finally:
        await source.close()


def _examine_trust(snapshot: "Snapshot") -> Finding:
    from tsmon.monitor.sight import document_reason  # noqa: PLC0415 (start-up time)

    reason, words = document_reason(snapshot, frozenset())
    if reason:
        return Finding("view", "failed", words, "until then tsmon says that it cannot see (blind)")
    name = snapshot.tailnet.name if snapshot.tailnet else "?"
    online = sum(node.online for node in snapshot.nodes.values())
    return Finding(
        "view",
        "ok",
        f"{name}: {counted(len(snapshot.nodes), 'node')}, {online} online, {snapshot.excluded} left out",
    )


def _examine_rows(snapshot: "Snapshot", settings: Settings) -> list[Finding]:
    from tsmon.classify import Classifier  # noqa: PLC0415 (start-up time)

    found = []
    if snapshot.malformed:
        says = f"{snapshot.malformed} rows cannot be read: {'; '.join(snapshot.malformed_named[:3])}"
        found.append(Finding("rows", "warning", says, "please report this with the version of tailscaled"))
    if snapshot.noise:
        says = f"the sidecar's command line warns: {snapshot.noise}"
        found.append(Finding("rows", "warning", says, "update tailscale beside the sidecar"))
    if len(snapshot.nodes) <= 1:
        remedy = "the tailnet's policy must let this machine reach the others, or they it"
        found.append(Finding("peers", "warning", "this machine sees no other", remedy))
    classifier = Classifier(settings)
    critical = sorted(node.hostname for node in snapshot.nodes.values() if classifier.role(node).critical)
    if critical:
        found.append(Finding("roles", "ok", f"{len(critical)} critical nodes: {_some(critical)}"))
    else:
        remedy = "set project_name, or give them [[roles]] (tsmon config init suggests some)"
        found.append(Finding("roles", "warning", "no node is critical: no outage is severe", remedy))
    return found


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


async def _examine_ping(source: "Source", snapshot: "Snapshot", settings: Settings) -> Finding:
    from tsmon.classify import Classifier  # noqa: PLC0415 (start-up time)

    classifier = Classifier(settings)
    asked = [
        node
        for node in snapshot.nodes.values()
        if node.online and not node.is_self and node.ip and classifier.role(node).ping
    ]
    if not asked:
        return Finding("ping", "skipped", "no other node that is online has a role with ping = true")
    node = min(asked, key=lambda node: node.hostname)
    outcome = await source.ping(node.ip or "")
    if outcome.outcome == "answered":
        return Finding(
            "ping", "ok", f"{node.hostname} answers in {outcome.latency_ms or 0:g} ms ({outcome.path})"
        )
    if outcome.outcome == "missed":
        return Finding(
            "ping", "warning", f"{node.hostname} is called online but answers no ping", "is it hung?"
        )
    remedy = "without pings tsmon takes the control server's word; a newer sidecar has /ping"
    return Finding("ping", "warning", outcome.error or "this source cannot ping", remedy)


def _examine_checks(source: "Source", snapshot: "Snapshot", settings: Settings) -> list[Finding]:
    """Whether ports of nodes can be asked; nothing where none is to be."""
    from tsmon.source.check_answer import CannotAskError  # noqa: PLC0415 (start-up time)

    if not settings.services and not any(role.checks for role in settings.roles):
        return []
    try:
        source.asker(snapshot.self_ips)
    except CannotAskError as error:
        return [Finding("checks", "failed", f"no port can be asked: {error}", "see docs/services.md")]
    return [Finding("checks", "ok", "ports of nodes can be asked")]


async def _examine_whois(source: "Source", snapshot: "Snapshot") -> Finding:
    from tsmon.source.errors import SourceError  # noqa: PLC0415 (start-up time)

    remedy = "with auth.mode tailnet nobody gets in until this works"
    if not snapshot.self_ips:
        return Finding("whois", "failed", "this machine has no tailnet address", remedy)
    try:
        answer = await source.whois(snapshot.self_ips[0])
    except SourceError as error:
        return Finding("whois", "failed", str(error), remedy)
    if answer is None or "text" in answer:
        return Finding("whois", "failed", "the source does not say in JSON who an address is", remedy)
    return Finding("whois", "ok", "the source says who an address is")
