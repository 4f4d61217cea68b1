"""The JSON webhook. docs/alerting.md has its schema."""

import hashlib
import hmac
from typing import Any

import msgspec

from tsmon.base.clock import Clock, rfc3339
from tsmon.config import Secret, redact_url
from tsmon.notify.details import runbook_of
from tsmon.notify.outcome import Outcome
from tsmon.notify.poster import Poster
from tsmon.notify.texts import Message

MOST_ALERTS = 1000
"""In one body; `count` says how many there are."""


class Webhook:
    """Sends each message as one POST."""

    def __init__(self, url: Secret, secret: Secret | None, monitor: str, clock: Clock) -> None:
        """`url` is `webhook+https://…`."""
        self.service = f"webhook {redact_url(url)}"
        self._poster = Poster(url.reveal().removeprefix("webhook+"), clock)
        self._secret = secret
        self._monitor = monitor

    async def send(self, message: Message) -> Outcome:
        body = msgspec.json.encode(payload(message, self._monitor))
        headers = {"Idempotency-Key": message.notice.key}
        if self._secret is not None:
            digest = hmac.new(self._secret.reveal().encode(), body, hashlib.sha256).hexdigest()
            headers["X-Tsmon-Signature"] = f"sha256={digest}"
        return await self._poster.post(body, headers)

    async def close(self) -> None:
        await self._poster.close()


def payload(message: Message, monitor: str) -> dict[str, Any]:
    """The body, before it becomes JSON."""
    notice = message.notice
    return {
        "version": 1,
        "id": notice.key,
        "kind": notice.kind,
        "status": "firing" if message.down else "resolved",
        "severity": message.severity,
        "title": message.title,
        "text": message.text,
        "markdown": message.markdown,
        "made_at": rfc3339(notice.made_at),
        "monitor": monitor,
        "cause": notice.cause or None,
        "still_down": notice.standing,
        "link": message.link or None,
        "count": len(message.entries),
        "truncated": len(message.entries) > MOST_ALERTS,
        "alerts": [
            {
                "id": str(alert.id),
                "phase": entry.phase,
                "kind": alert.kind,
                "state": alert.state,
                "severity": alert.severity,
                "node_id": alert.node_id,
                "hostname": alert.hostname,
                "node_type": alert.node_type,
                "since": rfc3339(alert.since),
                "fired_at": rfc3339(alert.fired_at),
                "resolved_at": rfc3339(alert.resolved_at),
                "duration_s": round(alert.duration(notice.made_at)),
                "ended_by": alert.cause,
                "message": alert.message,
                "confirmed_by": entry.how or None,
                "runbook": runbook_of(alert.kind),
            }
            for entry, alert in message.entries[:MOST_ALERTS]
        ],
    }
