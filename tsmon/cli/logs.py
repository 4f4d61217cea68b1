"""`tsmon logs`: what happened, oldest first, so that the newest stands above the prompt."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tsmon.cli.client import ApiClient, client_options, connect
from tsmon.cli.terminal import (
    SEVERITY_STYLES,
    CliError,
    console,
    local_time,
    local_words,
    plain,
    read_moment,
    utc_text,
    when,
)

if TYPE_CHECKING:
    from rich.text import Text

_PAGE = 200  # the most that the API gives at once
_FOLLOW_SECONDS = 2.0

Entry = dict[str, Any]


@click.command()
@client_options
@click.option(
    "--lines", "-n", type=click.IntRange(0, 100_000), default=20, show_default=True, metavar="NUMBER"
)
@click.option("--severity", type=click.Choice(["ok", "warning", "critical"]))
@click.option("--type", "event_type", metavar="TYPE", help="As node_offline, alert, monitor_blind.")
@click.option("--host", metavar="NAME", help="Only of this machine.")
@click.option("--since", metavar="TIME", help="As 2h, 7d, 2026-11-23T14:00 (your time zone).")
@click.option("--until", metavar="TIME", help="The same.")
@click.option("--grep", "-g", "q", metavar="TEXT", help="Only messages that contain this.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def logs(
    *, url: str | None, timeout: float, lines: int, follow: bool, as_json: bool, **filters: str | None
) -> None:
    """What happened: nodes going and coming, alerts, what tsmon could not see."""
    names = {"host": "hostname"}
    query = {names.get(name, name): text for name, text in filters.items() if text}
    for name in ("since", "until"):
        if name in query:
            query[name] = utc_text(read_moment(query[name], time.time()))
    show = _show_json if as_json else partial(_show, console())
    with suppress(KeyboardInterrupt):
        asyncio.run(_logs(url, timeout, lines, query, show, follow=follow))


async def _logs(
    url: str | None,
    timeout: float,
    lines: int,
    query: dict[str, str],
    show: Callable[[Entry], None],
    *,
    follow: bool,
) -> None:
    async with connect(url, timeout) as api:
        entries = await _newest(api, query, count=max(1, lines))
        for entry in reversed(entries[:lines]):
            show(entry)
        if follow:
            await _follow(api, query, show, _id(entries[0]) if entries else 0)


async def _newest(
    api: ApiClient, query: dict[str, str], *, count: int | None = None, after: int = 0
) -> list[Entry]:
    """Entries from the newest back, page by page, until there are `count` or one is not after `after`."""
    found: list[Entry] = []
    while not found or ((count is None or len(found) < count) and _id(found[-1]) > after):
        page = await _page(api, query, found[-1] if found else None, _PAGE)
        found += page
        if len(page) < _PAGE:
            break
    return found


async def _page(api: ApiClient, query: dict[str, str], before: Entry | None, size: int) -> list[Entry]:
    """Up to `size` entries, newest first, those before `before`. Raises CliError."""
    paging = {"before": str(before["id"])} if before else {}
    answer = await api.get("logs", per_page=size, **query, **paging)
    try:
        entries: list[Entry] = answer["logs"]
        [(_id(entry), entry["message"]) for entry in entries]
    except (KeyError, TypeError, ValueError):
        raise CliError(f"{api.name}: the answer is not tsmon's: is that tsmon? (--url)") from None
    return entries


async def _follow(api: ApiClient, query: dict[str, str], show: Callable[[Entry], None], last: int) -> None:
    """Show what is newer than `last`, until interrupted; a tsmon that restarts meanwhile is waited for."""
    failed = False
    while True:
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            found = await _newest(api, query, after=last)
        except CliError as error:
            if not failed:
                error.show()
            failed = True
            continue
        failed = False
        for entry in reversed(found):
            if _id(entry) > last:
                show(entry)
                last = _id(entry)


def _id(entry: Entry) -> int:
    return int(entry["id"])


def _show_json(entry: Entry) -> None:
    click.echo(json.dumps(entry))


def _show(out: Any, entry: Entry) -> None:
    out.print(render(entry, time.time()), soft_wrap=True)


def render(entry: Entry, now: float) -> "Text":
    """One entry as one line."""
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    severity = plain(entry.get("severity"), 10)
    line = Text(f"{local_time(when(entry.get('timestamp')), now)}  ", style="dim")
    line.append(f"{severity:8}  ", style=SEVERITY_STYLES.get(severity, "bold"))
    line.append(f"{plain(entry.get('event_type'), 24):16}  ", style="dim")
    message = local_words(entry["message"], now, 400)
    hostname = plain(entry.get("hostname") or "", 80)
    if hostname and hostname not in message:
        line.append(f"{hostname}: ", style="bold")
    return line.append(message)
