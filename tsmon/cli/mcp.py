"""`tsmon mcp`: what agents may ask, over standard input and output."""

import click

from tsmon.cli.client import client_options
from tsmon.cli.terminal import CliError


@click.command()
@client_options
def mcp(*, url: str | None, timeout: float) -> None:
    """Answer the questions of an agent (Model Context Protocol, on stdio) from a running tsmon. Only reads.

    Needs the extra: pip install 'tsmon[mcp]'.
    """
    try:
        from tsmon.cli.mcp_tools import make_server  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "pydantic"):
            raise
        raise CliError("tsmon mcp needs the MCP SDK: pip install 'tsmon[mcp]'") from None
    make_server(url, timeout).run("stdio")
