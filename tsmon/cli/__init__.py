"""The `tsmon` command. Each command's module is imported only when it runs: start-up time matters."""

from importlib import import_module

import click

COMMANDS = {
    "run": ("tsmon.cli.run", "run", "Watch the tailnet and answer on HTTP."),
    "demo": ("tsmon.cli.run", "demo", "Show everything on a simulated tailnet."),
    "status": ("tsmon.cli.status", "status", "How the tailnet is, as a table."),
    "check": ("tsmon.cli.check", "check", "How it is, for Nagios, Icinga, Checkmk and the like."),
    "logs": ("tsmon.cli.logs", "logs", "What happened."),
    "report": ("tsmon.cli.report", "report", "A month in one page: uptime, outages, what a target leaves."),
    "silence": ("tsmon.cli.operate", "silence", "Hold back messages for a while."),
    "unsilence": ("tsmon.cli.operate", "unsilence", "End a silence."),
    "ack": ("tsmon.cli.operate", "ack", "Take care of an alert: it sends no more reminders."),
    "note": ("tsmon.cli.operate", "note", "Write down what an outage was about, or that it was planned."),
    "notify": ("tsmon.cli.operate", "notify", "Send a test message, or try a channel again."),
    "reload": ("tsmon.cli.operate", "reload", "Apply the changed configuration."),
    "config": ("tsmon.cli.configure", "config", "Check, show or begin a configuration."),
    "doctor": ("tsmon.cli.doctor", "doctor", "Look at each thing tsmon needs, and say what is wrong."),
    "export": ("tsmon.cli.export", "export", "Write the history as NDJSON."),
    "import": ("tsmon.cli.importing", "import_", "Take an older monitor's samples into the history."),
    "mcp": ("tsmon.cli.mcp", "mcp", "Answer an agent's questions (Model Context Protocol, on stdio)."),
    "version": ("tsmon.cli.run", "version", "Print the version."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, _, words) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        from tsmon import __version__  # noqa: PLC0415 (start-up time)

        click.echo(f"tsmon {__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="The version."
)
def main() -> None:
    """tsmon watches a Tailscale tailnet day and night, and never calls "I cannot see" an outage."""
