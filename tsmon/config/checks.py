"""What no single value shows: whether the settings are sound and fit together. Pure."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tsmon.config.model import AuthSettings, ControlSettings, InfluxSettings, MaintenanceSettings, Settings
from tsmon.config.service_checks import read_checks
from tsmon.config.values import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SCHEMA_TAGS = ("hostname", "node_type", "os", "type", "severity")  # of both measurements


def check(settings: Settings) -> None:
    """Raises ConfigError naming the first setting that is wrong, and the remedy."""
    _check_source(settings.source.reveal())
    _check_listen(settings)
    _check_auth(settings.auth)
    _check_influx(settings.influx)
    _check_control(settings.control)
    if settings.public_url:
        _check_web(settings.public_url, "public_url")
    if settings.heartbeat.url:
        _check_web(settings.heartbeat.url.reveal(), "heartbeat.url")
    for host in settings.allowed_hosts:
        if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host):
            raise ConfigError(f"allowed_hosts: {host!r} is no host name (without scheme, port and path)")
    _check_roles(settings)
    _check_channels(settings)
    _check_zone(settings.report.time_zone, "report.time_zone")
    for n, window in enumerate(settings.maintenance):
        _check_window(window, f"maintenance[{n}]")


def is_loopback(host: str) -> bool:
    """`host` is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> SplitResult | None:
    """The parts of `url`, None when host or port are malformed."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def _check_web(url: str, where: str) -> None:
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}: takes a URL, as https://host.example/path")


def _check_source(source: str) -> None:
    parts = _split(source)
    if source == "auto" or (parts and parts.scheme == "unix" and parts.path[1:] and not parts.netloc):
        return
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "source: takes auto, http://HOST:PORT (sidecar) or unix:///PATH (tailscaled's socket)"
        )


def _check_listen(settings: Settings) -> None:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([0-9]{1,5})", settings.listen)
    if match is None or int(match[2]) > 65535:
        raise ConfigError("listen: takes HOST:PORT, as 127.0.0.1:8000 or [::1]:8000")
    host = match[1].strip("[]")
    if not settings.auth.mode and not is_loopback(host):
        raise ConfigError(
            f"listen: {host} is not loopback: say who may read with auth.mode (token, tailnet or none)"
        )


def _check_auth(auth: AuthSettings) -> None:
    if auth.mode == "token" and not auth.token:
        raise ConfigError("auth.token: is needed with auth.mode token (better: auth.token_file)")
    if auth.mode == "token" and auth.token and len(auth.token.reveal()) < 16:
        raise ConfigError("auth.token: is shorter than 16 characters (openssl rand -hex 32 makes one)")
    if auth.mode == "tailnet" and not (auth.users or auth.tags):
        raise ConfigError(
            'auth.users: is needed with auth.mode tailnet (who may read, as ["alice@example.com"])'
        )
    _check_tags(auth.tags, "auth.tags")
    for network in auth.trusted_networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ConfigError(
                f"auth.trusted_networks: {network!r} is no network (as 172.16.0.0/12 or 127.0.0.1)"
            ) from None


def _check_influx(influx: InfluxSettings) -> None:
    for tag in influx.tags:
        if tag in _SCHEMA_TAGS or not re.fullmatch(r"[A-Za-z][\w-]{0,63}", tag):
            raise ConfigError(
                f"influx.tags: {tag!r} cannot be a tag: letters, digits, '_' and '-', "
                f"and none of {', '.join(_SCHEMA_TAGS)}"
            )
    if not influx.url:
        return
    _check_web(influx.url, "influx.url")
    parts = urlsplit(influx.url)
    if parts.username or parts.password or parts.query:
        raise ConfigError("influx.url: must hold no user, password or query (use influx.token)")
    for name in ("org", "bucket"):
        if not getattr(influx, name):
            raise ConfigError(f"influx.{name}: is needed with influx.url")


_WRONG_TOKENS = {
    "tskey-client-": "is an OAuth client's: give it as control.client_secret, with control.client_id",
    "tskey-auth-": "is a key by which nodes join, and reads nothing: make an API access token",
    "hskey-auth-": "is a key by which nodes join, and reads nothing: headscale apikeys create makes one",
}


def _check_control(control: ControlSettings) -> None:
    names = ("url", "token", "client_id", "client_secret")
    given = [name for name in names if getattr(control, name)]
    if not control.kind:
        if given:
            raise ConfigError(f"control.kind: is needed with control.{given[0]}: tailscale or headscale")
        return
    if control.url:
        _check_web(control.url, "control.url")
        parts = urlsplit(control.url)
        if parts.username or parts.password or parts.query:
            raise ConfigError("control.url: must hold no user, password or query (use control.token)")
    elif control.kind == "headscale":
        raise ConfigError("control.url: is needed with headscale, as https://headscale.example.com")
    _check_credential(control)


def _check_credential(control: ControlSettings) -> None:
    client = control.client_id or control.client_secret
    if control.kind == "headscale" and client:
        raise ConfigError(
            "control.client_id: headscale has no OAuth clients: give an API key as control.token"
        )
    if control.token and client:
        raise ConfigError("control.token: is given beside control.client_id: keep one of them")
    if not control.token and not client:
        wanted = {"headscale": "an API key", "tailscale": "an access token, or client_id and client_secret"}
        raise ConfigError(f"control.token: is missing: give {wanted[control.kind]}")
    if client and not (control.client_id and control.client_secret):
        missing = "client_secret" if control.client_id else "client_id"
        raise ConfigError(f"control.{missing}: is missing: an OAuth client has both")
    for name, secret in (("token", control.token), ("client_secret", control.client_secret)):
        if secret and not re.fullmatch(r"[!-~]+", secret.reveal()):
            raise ConfigError(f"control.{name}: holds characters that no credential has")
    token = control.token.reveal() if control.token else ""
    for begin, remedy in _WRONG_TOKENS.items():
        if token.startswith(begin):
            raise ConfigError(f"control.token: {remedy}")
    if token.startswith({"tailscale": "hskey-", "headscale": "tskey-"}[control.kind]):
        raise ConfigError(f"control.token: is no key of {control.kind}: see control.kind")


def _check_roles(settings: Settings) -> None:
    _check_names("roles", [rule.name for rule in settings.roles])
    for n, rule in enumerate(settings.roles):
        if rule.key and not _NAME.fullmatch(rule.key):
            raise ConfigError(f"roles[{n}].key: takes letters, digits, '.', '_' and '-'")
        _check_tags(rule.tags, f"roles[{n}].tags")
        read_checks(rule.checks, f"roles[{n}].checks")


def _check_channels(settings: Settings) -> None:
    _check_names("notify", [channel.name for channel in settings.notify])
    for n, channel in enumerate(settings.notify):
        scheme, sign, rest = channel.url.reveal().partition("://")
        kind, _, transport = scheme.lower().rpartition("+")
        if not sign or not rest or not re.fullmatch("[a-z][a-z0-9+.-]*", scheme.lower()):
            raise ConfigError(
                f"notify[{n}].url: takes an Apprise URL, webhook+https://… or alertmanager+http://…"
            )
        if kind in ("webhook", "alertmanager"):
            _check_web(f"{transport}://{rest}", f"notify[{n}].url")
        _check_tags(channel.tags, f"notify[{n}].tags")


def _check_names(kind: str, names: Sequence[str]) -> None:
    for n, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{kind}[{n}].name: takes letters, digits, '.', '_' and '-'")
        if name in names[:n]:
            raise ConfigError(f"{kind}[{n}].name: {name!r} is taken by another one")


def _check_tags(tags: Sequence[str], where: str) -> None:
    for tag in tags:
        if not tag.casefold().startswith(("tag:", "*", "?", "[")):
            raise ConfigError(f'{where}: {tag!r} can match no tag: they begin with "tag:"')


def _check_zone(name: str, where: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{where}: {name!r} is no time zone (as Europe/Berlin)") from None


def _check_window(window: MaintenanceSettings, where: str) -> None:
    _check_zone(window.time_zone, f"{where}.time_zone")
    if bool(window.weekly) == bool(window.start or window.end):
        raise ConfigError(f"{where}: takes either start and end, or weekly")
    _check_tags(window.tags, f"{where}.tags")
    if window.weekly:
        _check_weekly(window.weekly, f"{where}.weekly")
    else:
        _check_stretch(window, where)


def _check_weekly(weekly: str, where: str) -> None:
    match = re.fullmatch(
        r"(mon|tue|wed|thu|fri|sat|sun) ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})", weekly.casefold()
    )
    if match is None:
        raise ConfigError(f'{where}: takes a day and two times, as "sat 02:00-04:00"')
    begin, end = match.groups()[1:3], match.groups()[3:5]
    if any(int(hour) > 23 or int(minute) > 59 for hour, minute in (begin, end)):
        raise ConfigError(f"{where}: has a time of day beyond 23:59")
    if begin == end:
        raise ConfigError(f"{where}: begins and ends at the same time")


def _check_stretch(window: MaintenanceSettings, where: str) -> None:
    try:
        begin, end = datetime.fromisoformat(window.start), datetime.fromisoformat(window.end)
    except ValueError:
        raise ConfigError(f"{where}: start and end take times, as 2026-12-24T20:00:00+01:00") from None
    zone = ZoneInfo(window.time_zone)
    begin, end = (moment if moment.tzinfo else moment.replace(tzinfo=zone) for moment in (begin, end))
    if end <= begin:
        raise ConfigError(f"{where}: end must come after start")
