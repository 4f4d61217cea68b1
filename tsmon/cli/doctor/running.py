"""What the doctor asks the tsmon that runs on this machine, over its admin socket."""

from collections.abc import Iterator
from typing import Any

from tsmon.cli.admin import exchange, socket_of
from tsmon.cli.doctor.finding import Finding
from tsmon.cli.terminal import CliError, plain
from tsmon.config import Settings

_REMEDIES = {True: "mend it, then: tsmon notify enable", False: "tsmon tries again by itself"}


async def examine_running(settings: Settings) -> list[Finding]:
    """How the running tsmon is, by its own account."""
    socket = socket_of(settings)
    if not socket.exists():
        return [Finding("running tsmon", "skipped", f"none with this state directory ({socket})")]
    try:
        parts = await exchange(socket, "/readiness", None)
    except CliError as error:
        return [Finding("running tsmon", "failed", error.message, "systemctl status tsmon, and its log")]
    return [*_source(parts), *_storage(parts), *_channels(parts)]


def _source(parts: dict[str, Any]) -> Iterator[Finding]:
    source, words = parts["source"], f"version {parts['version']}"
    if source["blind"]:
        says = f"{words}, is blind ({source['blind']}): {source['error'] or 'see its log'}"
        yield Finding("running tsmon", "failed", plain(says))
    else:
        yield Finding("running tsmon", "ok", f"{words}, {source['polls']} polls of {plain(source['name'])}")


def _storage(parts: dict[str, Any]) -> Iterator[Finding]:
    for text in (parts["storage"]["error"], parts["storage"]["report"]):
        if text:
            yield Finding("storage", "failed", plain(text))


def _channels(parts: dict[str, Any]) -> Iterator[Finding]:
    for row in parts["channels"]:
        what = f"{row['name']} ({row['service']})"
        if row["error"]:
            state = "parked" if row["parked"] else "failing"
            says = f"{what}: {state}: {row['error']}; {row['waiting']} messages wait"
            yield Finding("channel", "failed", plain(says), _REMEDIES[row["parked"]])
        else:
            last = row["last_success"]
            says = f"{what}: " + (f"last delivered {last}" if last else "nothing sent since the start")
            yield Finding("channel", "ok", plain(says), "" if last else f"tsmon notify test {row['name']}")
    beat = parts["heartbeat"]
    if beat is not None and beat["error"]:
        yield Finding("heartbeat", "failed", plain(f"{beat['service']}: {beat['error']}"))
