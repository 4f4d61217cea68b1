"""headscale's API (v1, from 0.26 on), read with an API key."""

import msgspec

from tsmon.base.clock import Clock
from tsmon.base.text import clean_text
from tsmon.base.threads import off_loop
from tsmon.config import ControlSettings
from tsmon.source.control import devices as machines
from tsmon.source.control.client import ControlClient
from tsmon.source.control.devices import Credential, Device, Listing

_REMEDIES = {
    401: "the API key is unknown or expired: headscale apikeys create makes one, for control.token",
    403: "a proxy before headscale refuses it",
    404: "is control.url that of headscale, without a path of its API?",
}


class _User(msgspec.Struct):
    name: str = ""
    email: str = ""


class _PreAuthKey(msgspec.Struct, rename="camel"):
    id: str = ""
    ephemeral: bool = False
    reusable: bool = False
    used: bool = False
    expiration: str | None = None
    created_at: str | None = None


class _Node(msgspec.Struct, rename="camel"):
    id: str | int
    name: str = ""
    given_name: str = ""
    user: _User | None = None
    ip_addresses: list[str] | None = None
    tags: list[str] | None = None
    last_seen: str | None = None
    expiry: str | None = None
    created_at: str | None = None
    online: bool | None = None
    pre_auth_key: _PreAuthKey | None = None
    approved_routes: list[str] | None = None
    available_routes: list[str] | None = None


class _Nodes(msgspec.Struct):
    nodes: list[msgspec.Raw]


class _ApiKey(msgspec.Struct, rename="camel"):
    prefix: str
    id: str = ""
    expiration: str | None = None
    created_at: str | None = None


class _ApiKeys(msgspec.Struct, rename="camel"):
    api_keys: list[_ApiKey]


class _PreAuthKeys(msgspec.Struct, rename="camel"):
    pre_auth_keys: list[_PreAuthKey]


_decode_node = msgspec.json.Decoder(_Node).decode


class Headscale:
    """A headscale that gives its API to a key."""

    kind = "headscale"
    scopes: tuple[str, ...] | None = None

    def __init__(self, settings: ControlSettings, clock: Clock) -> None:
        base = settings.url.rstrip("/").removesuffix("/api/v1")
        self._client = ControlClient(f"{base}/api/v1", clock)
        self._clock = clock
        self._token = settings.token.reveal() if settings.token else ""

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def requests(self) -> int:
        return self._client.requests

    async def devices(self) -> Listing:
        body = await self._get("/node", "the list of nodes")
        now = self._clock.wall()

        def read() -> Listing:
            return machines.read_rows(
                self._client.decode(body, _Nodes).nodes, lambda row: read_node(row, now)
            )

        return await off_loop(read, len(body), machines.SMALL)

    async def credentials(self, *, everyone: bool) -> tuple[Credential, ...]:
        body = await self._get("/apikey", "the list of API keys")
        found = [self._read_key(key) for key in self._client.decode(body, _ApiKeys).api_keys]
        if not everyone:
            return tuple(key for key in found if key.own)
        body = await self._get("/preauthkey", "the list of pre-auth keys")
        made = self._client.decode(body, _PreAuthKeys).pre_auth_keys
        # One that was used up opens nothing any more.
        return (*found, *(_read_pre_auth_key(key) for key in made if key.reusable or not key.used))

    def _read_key(self, key: _ApiKey) -> Credential:
        begin = key.prefix.removesuffix("***")
        return Credential(
            id=f"apikey-{clean_text(key.id or begin, 40)}",
            kind="API key",
            description=clean_text(begin.rstrip("-"), 40),
            created=machines.lenient_moment(key.created_at),
            expires=machines.lenient_moment(key.expiration),
            own=bool(begin) and self._token.startswith(begin),
        )

    async def _get(self, path: str, what: str) -> bytes:
        answer = await self._client.send("GET", path, bearer=self._token)
        self._client.refuse(answer, what, _REMEDIES)
        return answer.body

    async def close(self) -> None:
        await self._client.close()


def read_node(raw: msgspec.Raw, now: float) -> Device:
    """Raises ValueError or msgspec's errors for a row that cannot be read."""
    row = _decode_node(raw)
    id_ = machines.stable_id(str(row.id))
    hostname, dns_name = machines.names(row.given_name, row.name, id_)
    expires = machines.moment(row.expiry, "expiry")
    user = row.user or _User()
    return Device(
        id=id_,
        hostname=hostname,
        dns_name=dns_name,
        ips=machines.addresses(row.ip_addresses or ()),
        user=clean_text(user.email or user.name),
        tags=machines.tags(row.tags),
        created=machines.moment(row.created_at, "createdAt"),
        expires=expires,
        expired=expires is not None and expires <= now,
        expiry_disabled=expires is None,
        online=row.online,
        last_seen=machines.moment(row.last_seen, "lastSeen"),
        ephemeral=row.pre_auth_key.ephemeral if row.pre_auth_key is not None else None,
        routes_advertised=machines.routes(row.available_routes),
        routes_approved=machines.routes(row.approved_routes),
    )


def _read_pre_auth_key(key: _PreAuthKey) -> Credential:
    return Credential(
        id=f"preauthkey-{clean_text(key.id, 40)}",
        kind="pre-auth key",
        description="reusable" if key.reusable else "",
        created=machines.lenient_moment(key.created_at),
        expires=machines.lenient_moment(key.expiration),
    )
