"""Silences by command: begun and ended by operators, each with its event."""

import msgspec

from tsmon.monitor.alerts import Silence
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.state import Event
from tsmon.notify.quiet import Quiet
from tsmon.notify.stored import forget_silence, keep_silence


class Silencing:
    """Changes `quiet`; the store knows it with the same step."""

    def __init__(self, quiet: Quiet, monitor: Monitor) -> None:
        self._quiet = quiet
        self._monitor = monitor
        self._next = max(quiet.silences, default=0) + 1

    @property
    def silences(self) -> list[Silence]:
        """Those that last, oldest first."""
        return sorted(self._quiet.silences.values(), key=lambda silence: silence.id)

    async def silence(self, silence: Silence) -> Silence:
        """Hold back what `silence` selects from now on; its id is given here."""
        silence = msgspec.structs.replace(silence, id=self._next)
        self._next += 1
        self._quiet.add(silence)
        words = f"{silence.author} silenced {silence.words()}: {silence.reason}"
        event = self._operated(words, "silence", silence)
        await self._monitor.note(event, also=[keep_silence(silence)])
        return silence

    async def unsilence(self, silence_id: int, author: str) -> Silence | None:
        """End a silence; None when there is none of that id."""
        silence = self._quiet.remove(silence_id)
        if silence is not None:
            words = f"{author} ended the silence of {silence.words()}"
            event = self._operated(words, "unsilence", silence)
            await self._monitor.note(event, also=[forget_silence(silence_id)])
        return silence

    def _operated(self, words: str, action: str, silence: Silence) -> Event:
        return self._monitor.event(
            "operator",
            "ok",
            words,
            action=action,
            silence_id=str(silence.id),
            author=silence.author,
            reason=silence.reason,
            ends=silence.ends,
        )
