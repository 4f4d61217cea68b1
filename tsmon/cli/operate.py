"""`tsmon silence`, `unsilence`, `ack`, `notify`, `reload`: what changes something, over the admin socket."""

import getpass
import os
import time
from typing import Any

import click

from tsmon.cli.admin import ask
from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, console, local_time, plain, read_moment, utc_text, when
from tsmon.config import ConfigError, duration

_author = click.option("--author", metavar="NAME", help="Who does it (the user who runs this).")


def _who(author: str | None) -> str:
    try:
        return author or os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@click.command()
@click.argument("alert", type=click.IntRange(1), required=False)
@click.option("--host", "hosts", multiple=True, metavar="GLOB", help="Nodes of these names.")
@click.option("--tag", "tags", multiple=True, metavar="GLOB", help="Nodes with these tags (tag:db).")
@click.option("--os", "os_", multiple=True, metavar="GLOB", help="Nodes with these systems.")
@click.option("--user", "users", multiple=True, metavar="GLOB", help="Nodes of these owners.")
@click.option("--role", "roles", multiple=True, metavar="GLOB", help="Nodes of these roles.")
@click.option("--all", "everything", is_flag=True, help="Everything, tsmon's own alerts too.")
@click.option(
    "--for", "length", metavar="TIME", default="2h", show_default=True, help="How long, as 30m, 2h, 3d."
)
@click.option("--reason", metavar="TEXT", help="Why; it stands in the log.")
@_author
@click.option("--list", "listing", is_flag=True, help="Show the silences there are.")
@settings_options(("state_dir",))
def silence(
    given: Given,
    *,
    alert: int | None,
    hosts: tuple[str, ...],
    tags: tuple[str, ...],
    os_: tuple[str, ...],
    users: tuple[str, ...],
    roles: tuple[str, ...],
    everything: bool,
    length: str,
    reason: str | None,
    author: str | None,
    listing: bool,
) -> None:
    """Hold back the messages of an ALERT (its id), or of the nodes that all given globs select.

    Nothing else stops: tsmon goes on recording, and at the end says what is still down.
    """
    if listing:
        _show(ask(given, "/silences")["silences"])
        return
    if not reason:
        raise CliError("say why: --reason 'moving the rack'")
    try:
        seconds = duration(length, "--for")
    except ConfigError as error:
        raise CliError(str(error)) from None
    body: dict[str, Any] = {"author": _who(author), "reason": reason, "seconds": seconds, "all": everything}
    globs = {"hosts": hosts, "tags": tags, "os": os_, "users": users, "roles": roles}
    body |= {name: list(values) for name, values in globs.items()}
    if alert is not None:
        body["alert"] = alert
    click.echo(plain(ask(given, "/silence", body)["message"]))


def _show(silences: list[dict[str, Any]]) -> None:
    from rich.table import Table  # noqa: PLC0415 (start-up time)

    if not silences:
        click.echo("no silences")
        return
    now = time.time()
    table = Table("id", "what", "until", "by", "reason", box=None, pad_edge=False)
    for row in silences:
        until = local_time(when(row["ends"]), now)
        table.add_row(
            *(plain(text) for text in (row["id"], row["what"], until, row["author"], row["reason"]))
        )
    console().print(table)


@click.command()
@click.argument("silence_id", metavar="ID", type=click.IntRange(1))
@_author
@settings_options(("state_dir",))
def unsilence(given: Given, *, silence_id: int, author: str | None) -> None:
    """End the silence ID (`tsmon silence --list`)."""
    body = {"id": str(silence_id), "author": _who(author)}
    click.echo(plain(ask(given, "/unsilence", body)["message"]))


@click.command()
@click.argument("alerts", metavar="ALERT...", type=click.IntRange(1), nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", default="", help="What is done about it; it stands in the log.")
@_author
@settings_options(("state_dir",))
def ack(given: Given, *, alerts: tuple[int, ...], reason: str, author: str | None) -> None:
    """Take care of each ALERT (its id): no more reminders, its recovery is still reported.

    An alert of a node that was removed ends with it.
    """
    for alert in alerts:
        body = {"id": str(alert), "author": _who(author), "reason": reason}
        click.echo(plain(ask(given, "/ack", body)["message"]))


@click.command()
@click.argument("about", metavar="NODE|ALERT")
@click.option("--from", "begin", metavar="TIME", help="As 2h, 2026-11-23T14:00; the alert's begin.")
@click.option("--to", "end", metavar="TIME", help="The same; the alert's end.")
@click.option("--text", required=True, metavar="TEXT", help="Why; it stands in the report.")
@click.option("--planned", is_flag=True, help="Offline time in it counts as planned.")
@_author
@settings_options(("state_dir",))
def note(
    given: Given,
    *,
    about: str,
    begin: str | None,
    end: str | None,
    text: str,
    planned: bool,
    author: str | None,
) -> None:
    """Write down what an outage of NODE, or the one of ALERT (its id), was about. Nothing is deleted."""
    body: dict[str, Any] = {"about": about, "author": _who(author), "text": text, "planned": planned}
    now = time.time()
    times = {"from": begin, "to": end}
    body |= {name: utc_text(read_moment(given_, now)) for name, given_ in times.items() if given_}
    click.echo(plain(ask(given, "/note", body)["message"]))


@click.command()
@settings_options(("state_dir",))
def reload(given: Given) -> None:
    """Let the running tsmon apply its changed configuration (as SIGHUP does, but says what came of it)."""
    click.echo(plain(ask(given, "/reload", {})["message"]))


@click.group()
def notify() -> None:
    """Channels: send a test message, or try one again."""


@notify.command()
@click.argument("channel", required=False)
@settings_options(("state_dir",))
def test(given: Given, *, channel: str | None) -> None:
    """Send one message to the CHANNEL, or to each, and say what came back."""
    failed = 0
    for row in ask(given, "/notify/test", {"channel": channel})["results"]:
        failed += not row["delivered"]
        click.echo(plain(f"{row['channel']}: {'delivered' if row['delivered'] else row['error']}"))
    if failed:
        raise click.exceptions.Exit(1)


@notify.command()
@click.argument("channel", required=False)
@settings_options(("state_dir",))
def enable(given: Given, *, channel: str | None) -> None:
    """Try the CHANNEL, or each, at once, though it refused before."""
    click.echo(plain(ask(given, "/notify/enable", {"channel": channel})["message"]))
