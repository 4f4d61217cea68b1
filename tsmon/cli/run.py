"""`tsmon run`, `demo` and `version`."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import click

from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError
from tsmon.config import BAD_CONFIGURATION, ConfigError, Settings, load, load_all

_DEMO_FLAGS = ("listen", "log.level", "log.format")
_DEMO_VARIABLES = ("TSMON_LISTEN", "TSMON_LOG_", "TSMON_AUTH_", "TSMON_ALLOWED_HOSTS", "TSMON_PUBLIC_URL")


class _WrongConfigurationError(CliError):
    exit_code = BAD_CONFIGURATION


@click.command()
@settings_options()
@click.option("--or-demo", is_flag=True, hidden=True)
def run(given: Given, *, or_demo: bool) -> None:
    """Watch the tailnet and answer on HTTP, until SIGTERM or Ctrl-C. SIGHUP reads the configuration again.

    Exit code 78: the configuration is wrong; 1: it could not start for another reason.
    """
    settings = given.load_or_fail(_WrongConfigurationError).settings
    if or_demo and settings.source.reveal() == "auto" and not asyncio.run(tailnet_here(settings)):
        from tsmon.source.auto import SIDECAR_URL, SOCKETS  # noqa: PLC0415 (start-up time)

        click.echo(
            f"tsmon: no tailnet to watch here (no tailscaled at {SOCKETS[0]}, no sidecar at {SIDECAR_URL}): "
            "this is the demo tailnet instead",
            err=True,
        )
        run_demo(given, nodes=0)
    from tsmon.daemon import process  # noqa: PLC0415 (start-up time)

    sys.exit(process.run(settings, partial(load, given.config, os.environ, given.flags)))


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(0, 20_000),
    default=0,
    metavar="NUMBER",
    help="How many machines at least; without, the dozen or so of the story.",
)
@settings_options(_DEMO_FLAGS, file=False)
def demo(given: Given, *, nodes: int) -> None:
    """Show everything on a simulated tailnet, with 90 days of history: no Tailscale, no configuration, and
    nothing of it touches anything real."""
    run_demo(given, nodes)


@click.command()
def version() -> None:
    """Print the version."""
    from tsmon import __version__  # noqa: PLC0415 (start-up time)

    click.echo(f"tsmon {__version__}")


def run_demo(given: Given, nodes: int) -> None:
    """Of the configuration only where it answers and whom counts: a demo touches nothing real."""
    from tsmon.daemon import process  # noqa: PLC0415 (start-up time)

    environ = {name: text for name, text in os.environ.items() if name.startswith(_DEMO_VARIABLES)}
    flags = {key: text for key, text in given.flags.items() if key in _DEMO_FLAGS}
    try:
        settings = load_all(None, environ, flags).settings
    except ConfigError as error:
        raise CliError(str(error)) from None
    sys.exit(process.run_demo(settings, nodes))


async def tailnet_here(settings: Settings) -> bool:
    """There is a tailscaled socket on this machine, or a sidecar: whether they work or not."""
    from tsmon.source.auto import SIDECAR_URL, SOCKETS  # noqa: PLC0415 (start-up time)
    from tsmon.source.errors import SourceError  # noqa: PLC0415 (start-up time)
    from tsmon.source.sidecar import Sidecar  # noqa: PLC0415 (start-up time)

    if any(Path(path).exists() for path in SOCKETS):  # noqa: ASYNC240 (nothing else runs yet)
        return True
    host, _, port = SIDECAR_URL.removeprefix("http://").rpartition(":")
    try:
        async with asyncio.timeout(settings.source_timeout):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
    except OSError:  # TimeoutError too
        return False
    sidecar = Sidecar(SIDECAR_URL, settings)
    try:
        return b'"BackendState"' in await sidecar.status()
    except SourceError as error:
        return error.reason != "bad_document"  # whatever listens there is no sidecar
    finally:
        await sidecar.close()
