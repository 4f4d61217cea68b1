"""Where tsmon listens: the API on TCP, commands on a unix socket in the state directory."""

import os
from pathlib import Path

import structlog
from aiohttp import web

from tsmon.config import BAD_CONFIGURATION, ConfigError, Settings, admin_sockets
from tsmon.daemon.parts import Parts
from tsmon.server.admin import Admin
from tsmon.server.connections import IDLE_SECONDS, Connections
from tsmon.server.params import NoQuery
from tsmon.server.routing import Route

log = structlog.get_logger(__name__)


class StartError(Exception):
    """tsmon cannot start; the text says why and the remedy."""

    def __init__(self, words: str, code: int = 1) -> None:
        """`code` is the process' exit code."""
        super().__init__(words)
        self.code = code


class Listening:
    """Both of them: `start`, `close` (no new connections), `stop`."""

    def __init__(self, parts: Parts, admin: Admin, state_dir: Path) -> None:
        app = parts.api.application(
            [Route("/metrics", parts.metrics.metrics, "Prometheus text", str, NoQuery)]
        )
        self.connections = Connections(stuck=parts.loops.stuck, trusts=parts.api.access.is_trusted)
        app.on_response_prepare.append(self.connections.make_room)
        app.middlewares.insert(0, self.connections.middleware)
        self.runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=1.0,
            keepalive_timeout=IDLE_SECONDS,
            handler_cancellation=True,  # nobody works for a client that left
        )
        self._parts = parts
        self._admin = admin
        self._state_dir = state_dir

    async def start(self, settings: Settings) -> str:
        """Returns the URL of the API. Raises StartError; nothing listens then."""
        url = await self._listen(settings)
        try:
            await self._take_commands()
        except (OSError, ConfigError) as error:
            await self._admin.stop()
            self.connections.close()
            await self.runner.cleanup()
            if isinstance(error, ConfigError):
                raise StartError(str(error), BAD_CONFIGURATION) from None
            raise StartError(
                f"state_dir: no socket for commands can be made in {self._state_dir}: "
                f"{error.strerror or error}"
            ) from None
        return url

    async def _listen(self, settings: Settings) -> str:
        host, port = settings.address
        await self.runner.setup()
        assert self.runner.server is not None  # noqa: S101 (setup made it)
        try:
            bound = await self.connections.listen(self.runner.server, host, port)
        except OSError as error:
            await self.runner.cleanup()
            raise StartError(
                f"listen: {settings.listen} cannot be used: {error.strerror or error}"
                " (is another tsmon running there? see --listen)"
            ) from None
        return f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"

    async def _take_commands(self) -> None:
        await self._admin.start(admin_sockets(self._state_dir, os.environ), self._parts.settings.admin_group)

    async def look_after_commands(self) -> None:
        """Commands need their socket: make it again when somebody cleared the state directory."""
        if self._admin.is_whole:
            return
        await self._admin.stop()
        try:
            await self._take_commands()
        except (OSError, ConfigError):
            return  # the directory comes back with the next write
        log.warning("admin_socket_made_anew", path=str(self._state_dir))

    def close(self) -> None:
        """Accept nothing more."""
        self.connections.close()

    async def stop(self) -> None:
        """End what is open."""
        await self._admin.stop()
        await self.runner.cleanup()
