"""Tailscale's API (v2), read with an access token or as an OAuth client."""

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from tsmon.base.clock import Clock
from tsmon.base.text import clean_text
from tsmon.base.threads import off_loop
from tsmon.config import ControlSettings
from tsmon.source.control import TAILSCALE_URL
from tsmon.source.control import devices as machines
from tsmon.source.control.client import Answer, ControlClient
from tsmon.source.control.devices import Credential, Device, Listing
from tsmon.source.control.fault import ControlError
from tsmon.source.status import OS_LABELS

_SHARED_AGAIN = 86400.0
"""Seconds for which `fields=all` is not tried again once it answered 404 (some tailnets with machines shared
in)."""
_DEVICES_SCOPE = "devices:core:read"
_KEY_SCOPES = "auth_keys:read, oauth_keys:read and api_access_tokens:read"


class _Device(msgspec.Struct, rename="camel"):
    node_id: str
    name: str = ""
    hostname: str = ""
    addresses: list[str] | None = None
    user: str = ""
    tags: list[str] | None = None
    os: str = ""
    client_version: str = ""
    update_available: bool | None = None
    created: str | None = None
    connected_to_control: bool | None = None
    last_seen: str | None = None
    key_expiry_disabled: bool | None = None
    expires: str | None = None
    authorized: bool | None = None
    is_external: bool = False
    is_ephemeral: bool | None = None
    tailnet_lock_error: str = ""
    enabled_routes: list[str] | None = None
    advertised_routes: list[str] | None = None


class _Devices(msgspec.Struct):
    devices: list[msgspec.Raw]


class _Key(msgspec.Struct, rename="camel"):
    id: str
    key_type: str = ""
    description: str = ""
    created: str | None = None
    expires: str | None = None
    revoked: str | None = None
    invalid: bool = False
    scopes: list[str] | None = None


class _Keys(msgspec.Struct):
    keys: list[_Key]


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0
    scope: str = ""


_decode_device = msgspec.json.Decoder(_Device).decode


class Tailscale:
    """Tailscale's API at its own address, or at that of a proxy."""

    kind = "tailscale"

    def __init__(self, settings: ControlSettings, clock: Clock) -> None:
        base = (settings.url or TAILSCALE_URL).rstrip("/").removesuffix("/api/v2")
        self._client = ControlClient(f"{base}/api/v2", clock)
        self._clock = clock
        self._token = settings.token.reveal() if settings.token else ""
        self._oauth = Oauth(settings, self._client, clock) if settings.client_id else None
        self._default_until = float("-inf")

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def requests(self) -> int:
        return self._client.requests

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What the OAuth client may do, once it got a token."""
        return self._oauth.scopes if self._oauth is not None else None

    async def devices(self) -> Listing:
        body = await self._devices()
        now = self._clock.wall()

        def read() -> Listing:
            rows = self._client.decode(body, _Devices).devices
            return machines.read_rows(rows, lambda row: read_device(row, now))

        return await off_loop(read, len(body), machines.SMALL)

    async def _devices(self) -> bytes:
        what, path = "the list of devices", "/tailnet/-/devices?fields="
        if self._clock.mono() >= self._default_until:
            answer = await self._get(path + "all")
            if answer.status != 404:
                self._refuse(answer, what, _DEVICES_SCOPE)
                return answer.body
        answer = await self._get(path + "default")
        self._refuse(answer, what, _DEVICES_SCOPE)
        self._default_until = max(self._default_until, self._clock.mono() + _SHARED_AGAIN)
        return answer.body

    async def credentials(self, *, everyone: bool) -> tuple[Credential, ...]:
        found = await self._own()
        if everyone:
            answer = await self._get("/tailnet/-/keys?all=true")
            self._refuse(answer, "the list of keys", _KEY_SCOPES)
            rows = self._client.decode(answer.body, _Keys).keys
            own = {key.id for key in found}
            found += [_read_key(key) for key in rows if not (key.invalid or key.revoked or key.id in own)]
        return tuple(found)

    async def _own(self) -> list[Credential]:
        """The own credential; none when its id is not in it, or the server does not say."""
        secret = self._oauth.secret if self._oauth is not None else self._token
        match = re.fullmatch(r"tskey-(?:api|client)-([A-Za-z0-9]+)-.+", secret)
        if match is None:
            return []
        answer = await self._get(f"/tailnet/-/keys/{quote(match[1], safe='')}")
        if answer.status in (403, 404):
            return []
        self._refuse(answer, "this credential", "")
        return [_read_key(self._client.decode(answer.body, _Key), own=True)]

    async def _get(self, path: str) -> Answer:
        """An answer whatever its status. A token of the OAuth client that ended early is renewed once."""
        if self._oauth is None:
            return await self._client.send("GET", path, bearer=self._token)
        fresh = self._oauth.is_due
        answer = await self._client.send("GET", path, bearer=await self._oauth.token())
        if answer.status == 401 and not fresh:
            self._oauth.drop()
            answer = await self._client.send("GET", path, bearer=await self._oauth.token())
        return answer

    def _refuse(self, answer: Answer, what: str, scope: str) -> None:
        which = "OAuth client" if self._oauth is not None else "access token"
        remedies: Mapping[int, str] = {
            401: f"the {which} is unknown, revoked or expired: make one in the admin console",
            403: f"the {which} may not read it" + (f": it needs the scope {scope}" if scope else ""),
            404: "is control.url that of Tailscale's API?",
        }
        self._client.refuse(answer, what, remedies)

    async def close(self) -> None:
        await self._client.close()


class Oauth:
    """The OAuth client's access token: fetched when it is needed, renewed before it ends."""

    def __init__(self, settings: ControlSettings, client: ControlClient, clock: Clock) -> None:
        self.secret = settings.client_secret.reveal() if settings.client_secret else ""
        self.scopes: tuple[str, ...] | None = None
        self._id = settings.client_id
        self._client = client
        self._clock = clock
        self._token = ""
        self._due = float("-inf")

    @property
    def is_due(self) -> bool:
        """There is no token that is sure to last for the next request."""
        return not self._token or self._clock.mono() >= self._due

    def drop(self) -> None:
        self._token = ""

    async def token(self) -> str:
        """Raises ControlError."""
        if self.is_due:
            asked = self._clock.mono()
            form = {
                "client_id": self._id,
                "client_secret": self.secret,
                "grant_type": "client_credentials",
            }
            answer = await self._client.send("POST", "/oauth/token", form=form)
            remedy = (
                "control.client_id and control.client_secret are not those of an OAuth client that is there"
            )
            self._client.refuse(answer, "the OAuth client", {400: remedy, 401: remedy, 403: remedy})
            made = self._client.decode(answer.body, _Token)
            if not re.fullmatch(r"[!-~]+", made.access_token):
                raise ControlError("bad_answer", f"{self._client.name}: gave an access token that is none")
            self._token = made.access_token
            # In time: a tenth of its life before its end, and 5 min at most.
            life = max(0.0, made.expires_in)
            self._due = asked + life - min(300.0, life / 10)
            self.scopes = tuple(sorted(clean_text(scope, 64) for scope in made.scope.split())) or None
        return self._token


def read_device(raw: msgspec.Raw, now: float) -> Device:
    """Raises ValueError or msgspec's errors for a row that cannot be read."""
    row = _decode_device(raw)
    id_ = machines.stable_id(row.node_id)
    hostname, dns_name = machines.names(row.name, row.hostname, id_, whole=row.is_external)
    expires = None if row.key_expiry_disabled else machines.moment(row.expires, "expires")
    return Device(
        id=id_,
        hostname=hostname,
        dns_name=dns_name,
        ips=machines.addresses(row.addresses or ()),
        os=OS_LABELS.get(row.os, clean_text(row.os, 32)) if row.os else "",
        user=clean_text(row.user),
        tags=machines.tags(row.tags),
        version=clean_text(row.client_version, 64),
        update_available=row.update_available,
        created=machines.moment(row.created, "created"),
        expires=expires,
        expired=expires is not None and expires <= now,
        expiry_disabled=row.key_expiry_disabled,
        online=row.connected_to_control,
        last_seen=machines.moment(row.last_seen, "lastSeen"),
        approved=row.authorized,
        external=row.is_external,
        ephemeral=row.is_ephemeral,
        locked_out=clean_text(row.tailnet_lock_error, 120),
        routes_advertised=machines.routes(row.advertised_routes),
        routes_approved=machines.routes(row.enabled_routes),
    )


_KINDS = {
    "api": "API access token",
    "client": "OAuth client",
    "auth": "auth key",
    "federated": "trust credential",
}


def _read_key(key: _Key, *, own: bool = False) -> Credential:
    return Credential(
        id=clean_text(key.id, 64),
        kind=_KINDS.get(key.key_type, "key"),
        description=clean_text(key.description, 80),
        created=machines.lenient_moment(key.created),
        expires=machines.lenient_moment(key.expires),
        own=own,
        scopes=tuple(sorted(clean_text(scope, 64) for scope in key.scopes)) if key.scopes else None,
    )
