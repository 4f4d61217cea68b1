"""The options that say settings: `--config`, and the flags of the settings that have one."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tsmon.base.journal import for_stderr
from tsmon.cli.terminal import CliError, plain
from tsmon.config import FLAGS, ConfigError, LoadedSettings, find_file, flag_name, load_all

_HELP = {
    "source": "http://HOST:PORT (sidecar), unix:///PATH (tailscaled's socket) or auto.",
    "listen": "HOST:PORT of the HTTP server; port 0 picks a free one.",
    "state_dir": "Directory of the database and the admin socket.",
    "poll_interval": "How often the tailnet is read (15s).",
    "ping_interval": "How often nodes are pinged (1m).",
    "collect_interval": "How often samples are written (5m).",
    "check_interval": "How often critical nodes that are down are logged (2m).",
    "report_interval": "How often the health report is logged (1h).",
    "log.level": "debug, info, warning or error.",
    "log.format": "text, json or auto.",
}


class Given:
    """What the command line said: `config` and `flags` (key -> text)."""

    def __init__(self, config: Path | None, flags: Mapping[str, str | None]) -> None:
        self.config = config
        self.flags = dict(flags)

    def load(self) -> LoadedSettings:
        """The settings, with the environment. Raises ConfigError."""
        return load_all(find_file(self.config, os.environ), os.environ, self.flags)

    def load_or_fail(self, failure: type[CliError] = CliError) -> LoadedSettings:
        """The same, for commands that cannot go on without; warnings go to stderr. Raises `failure`."""
        try:
            loaded = self.load()
        except ConfigError as error:
            raise failure(str(error)) from None
        for warning in loaded.warnings:
            click.echo(for_stderr(f"tsmon: {plain(warning)}", "warning"), err=True)
        return loaded


def settings_options(keys: Sequence[str] = FLAGS, *, file: bool = True) -> Callable[..., Any]:
    """Adds `--config` and the flags of `keys`; the command gets a `Given` as its first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(**kwargs: Any) -> Any:
            flags = {key: kwargs.pop(_parameter(key)) for key in keys}
            return command(Given(kwargs.pop("config", None), flags), **kwargs)

        decorated: Callable[..., Any] = wrapped
        for key in reversed(keys):
            option = click.option(flag_name(key), _parameter(key), metavar="TEXT", help=_HELP[key])
            decorated = option(decorated)
        if file:
            decorated = click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Configuration (TSMON_CONFIG; /etc/tsmon/tsmon.toml if it is there).",
            )(decorated)
        return decorated

    return decorate


def _parameter(key: str) -> str:
    return key.replace(".", "_")
