"""The settings as frozen records. docs/configuration.md says what each is for."""

import socket
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from tsmon.config.values import MIB, Kind, Secret

Duration = Annotated[float, Kind("duration")]
Interval = Annotated[float, Kind("duration", least=1.0)]
Days = Annotated[float, Kind("duration", least=86400.0)]
Limit = Annotated[float | None, Kind("duration")]
Share = Annotated[float | None, Kind("share")]
Steps = Annotated[tuple[float, ...], Kind("durations")]
Size = Annotated[int, Kind("size", least=1024)]


class RoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[roles]]` table; all conditions given must match."""

    name: str
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    node_type: Literal["production", "development", "git", "other"] = "other"
    key: str = ""
    critical: bool = False
    alert: Literal["none", "warning", "critical"] = "warning"
    offline_after: Limit = None
    ping: bool | None = None
    key_expiry_steps: Annotated[tuple[float, ...] | None, Kind("durations")] = None
    target: Share = None
    checks: tuple[str, ...] = ()
    """Ports of each node that are asked over the tailnet: `tcp:22`, `http:8080/healthz`, `https:443/`."""


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[notify]]` table."""

    name: str
    url: Secret
    min_severity: Literal["warning", "critical"] = "warning"
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    remind_every: Limit = None
    hmac_secret: Secret | None = None

    @property
    def is_filtered(self) -> bool:
        """The channel is for some of the nodes only, and gets nothing about the whole (rule 9.8)."""
        return bool(self.hosts or self.tags or self.roles)


class MaintenanceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[maintenance]]` table: `start` and `end` (RFC 3339), or `weekly` (`"sat 02:00-04:00"`)."""

    start: Annotated[str, Kind("moment")] = ""
    end: Annotated[str, Kind("moment")] = ""
    weekly: str = ""
    time_zone: str = "UTC"
    """Of `weekly`, and of a `start` and `end` that name none."""
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class FlappingSettings(msgspec.Struct, frozen=True, kw_only=True):
    changes: Annotated[int, Kind("count", least=2, most=1000)] = 6
    window: Interval = 1800.0
    settle: Interval = 600.0


class PathDegradedSettings(msgspec.Struct, frozen=True, kw_only=True):
    latency: Limit = None
    relay: bool = False


class HistorySettings(msgspec.Struct, frozen=True, kw_only=True):
    uptime_source: Literal["auto", "embedded", "influxdb"] = "auto"


class InfluxSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""
    token: Secret | None = None
    org: str = ""
    bucket: str = "analytics"
    tags: dict[str, str] = {}
    outbox_age: Interval = 7 * 86400.0
    outbox_bytes: Size = 256 * MIB


class HeartbeatSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: Secret | None = None
    interval: Interval = 60.0


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["", "none", "token", "tailnet"] = ""
    """"" means `none`, which only a loopback `listen` allows unsaid."""
    token: Secret | None = None
    users: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    trusted_networks: tuple[str, ...] = ()


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The control server's API. Without `kind` it is not asked."""

    kind: Literal["", "tailscale", "headscale"] = ""
    url: str = ""
    """"" means Tailscale's own."""
    token: Secret | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    interval: Interval = 300.0
    keys: bool = False
    """Look at the end of every credential of the tailnet, not only of this one."""
    device_joined: bool = False


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    per_node: bool = True


class ReportSettings(msgspec.Struct, frozen=True, kw_only=True):
    time_zone: str = "UTC"
    monthly: bool = False
    """Send the summary of each month that is over to the channels."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings; durations in seconds, sizes in bytes."""

    source: Secret = Secret("auto")
    source_timeout: Interval = 10.0
    source_max_bytes: Size = 128 * MIB
    ping_timeout: Interval = 5.0
    listen: str = "127.0.0.1:8000"
    state_dir: str = ""
    """"" means the service manager's, /var/lib/tsmon when writable, else the XDG state directory."""
    poll_interval: Interval = 15.0
    ping_interval: Interval = 60.0
    collect_interval: Interval = 300.0
    check_interval: Interval = 120.0
    report_interval: Interval = 3600.0
    offline_after: Duration = 120.0
    blind_after: Interval = 120.0
    reconnect_grace: Duration = 30.0
    flapping: FlappingSettings = FlappingSettings()
    key_expiry_steps: Steps = (14 * 86400.0, 3 * 86400.0, 86400.0)
    path_degraded: PathDegradedSettings = PathDegradedSettings()
    project_name: str = "chocolate-factory"
    default_roles: bool = True
    roles: tuple[RoleSettings, ...] = ()
    services: bool = False
    """Tailscale Services that this machine sees are checked as well."""
    service_interval: Interval = 60.0
    diagnose: bool = True
    """While control is lost, ask whether the control server and the internet answer."""
    exclude: tuple[Literal["sharee", "funnel", "mullvad"], ...] = ("sharee", "funnel", "mullvad")
    retention: Days = 400 * 86400.0
    latency_retention: Days = 90 * 86400.0
    history: HistorySettings = HistorySettings()
    influx: InfluxSettings = InfluxSettings()
    notify: tuple[ChannelSettings, ...] = ()
    group_wait: Duration = 10.0
    remind_every: Interval = 86400.0
    maintenance: tuple[MaintenanceSettings, ...] = ()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    auth: AuthSettings = AuthSettings()
    control: ControlSettings = ControlSettings()
    admin_group: str = ""
    """Group that may change things with the `tsmon` command; "" means the owner alone."""
    allowed_hosts: tuple[str, ...] = ()
    public_url: str = ""
    monitor: str = ""
    """"" means the host's name."""
    metrics: MetricsSettings = MetricsSettings()
    report: ReportSettings = ReportSettings()
    log: LogSettings = LogSettings()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`; port 0 picks a free one."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def monitor_name(self) -> str:
        return self.monitor or socket.gethostname()

    @property
    def path_prefix(self) -> str:
        """Path of `public_url`, "" when there is none: a reverse proxy may hand it through."""
        return urlsplit(self.public_url).path.rstrip("/")


FLAGS = (
    "source",
    "listen",
    "state_dir",
    "poll_interval",
    "ping_interval",
    "collect_interval",
    "check_interval",
    "report_interval",
    "log.level",
    "log.format",
)
"""Settings that have a flag of their own on the command line."""

NEED_RESTART = ("source", "listen", "state_dir", "admin_group")
"""Settings that a reload cannot apply."""
