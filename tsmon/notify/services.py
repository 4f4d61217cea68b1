"""Everything that Apprise knows: chats, push services, mail. The library is imported when it is needed."""

import asyncio
import re
import threading
from typing import Any
from urllib.parse import unquote, urlsplit

from tsmon.base.text import clean_text
from tsmon.config import Secret, redact_url
from tsmon.notify.outcome import DELIVERED, Outcome
from tsmon.notify.texts import Message

_TIMEOUT = 45.0
PROGRAM_STARTERS = ("macosx", "windows", "gnome", "dbus", "kde", "qt", "glib", "gio")
"""Services of the desktop that tsmon runs on: they start programs, or talk to a session that is not there."""
_TYPES = {"ok": "success", "warning": "warning", "critical": "failure"}


class AppriseService:
    """One Apprise URL with one target."""

    def __init__(self, url: Secret) -> None:
        self.service = f"Apprise {redact_url(url)}"
        self._url = url
        self._apprise: Any = None

    async def send(self, message: Message) -> Outcome:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()

        def work() -> None:
            _hand_over(loop, done, self._send(message))

        # A thread of its own: one that hangs must not keep tsmon from stopping.
        threading.Thread(target=work, name="apprise", daemon=True).start()
        try:
            async with asyncio.timeout(_TIMEOUT + 5):
                return await done
        except TimeoutError:
            return Outcome(False, "no answer in time")

    async def close(self) -> None:
        return

    # -- in its thread ---------------------------------------------------------------------------------

    def _send(self, message: Message) -> Outcome:
        try:
            if self._apprise is None:
                self._apprise, problem = _load(self._url.reveal())
                if self._apprise is None:
                    return Outcome(False, problem, refused=True)
            result = self._apprise.notify(
                title=message.title,
                body=message.text,
                body_format="text",
                notify_type=_TYPES[message.severity],
                timeout=_TIMEOUT,
            )
            if result:
                return DELIVERED
            words = "; ".join(str(entry.message) for entry in result.logs()) or result.status.name.lower()
        except ImportError:
            return Outcome(False, "the library is missing: pip install 'tsmon[notify]'", refused=True)
        except Exception as error:  # noqa: BLE001 (plugins of many hands)
            words = f"{type(error).__name__}: {error}"
        return Outcome(False, clean_text(without_secrets(words, self._url.reveal()), 200))


def _load(url: str) -> tuple[Any, str]:
    """An Apprise object with the one service of `url`, or None and why not."""
    import apprise  # noqa: PLC0415 (0.3 s: only when a channel needs it)

    scheme = url.partition("://")[0].lower()
    if scheme in PROGRAM_STARTERS:
        return None, f"{scheme}:// acts on the desktop of the machine and is not supported"
    asset = apprise.AppriseAsset(secure_logging=True, app_id="tsmon", app_desc="tsmon", plugin_paths=[])
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        return None, f"Apprise cannot read the {scheme}:// URL: see its documentation for the form"
    if len(service) > 1:
        return None, f"the {scheme}:// URL has {len(service)} targets: make one channel of each"
    box = apprise.Apprise(asset=asset)
    box.add(service)
    return box, ""


def without_secrets(words: str, url: str) -> str:
    """`words` without any part of `url` that may be a token."""
    rest = url.partition("://")[2]
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    pieces = {piece for text in (rest, unquote(rest)) for piece in re.split(r"[/@:?&=,;#\s]+", text)}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= 4 and piece.lower() != host.lower():
            words = words.replace(piece, "***")
    return words


def _hand_over(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    """Hand the outcome to the loop; one that has closed meanwhile does not need it."""

    def settle() -> None:
        if not done.done():
            done.set_result(outcome)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return
