"""Settings: TOML file, environment, flags and `_FILE` secrets; validated and frozen.

Durations are seconds here and written `15s`, `2m`, `1h`, `14d`, `500ms` outside.
"""

from tsmon.config.checks import is_loopback
from tsmon.config.loading import (
    DEFAULT_FILE,
    Loaded,
    admin_socket_places,
    admin_sockets,
    find_file,
    flag_name,
    load,
    load_all,
    setting_keys,
    state_dir,
    variable_name,
)
from tsmon.config.model import (
    FLAGS,
    NEED_RESTART,
    Auth,
    Channel,
    Flapping,
    Heartbeat,
    History,
    InfluxSettings,
    Log,
    Maintenance,
    Metrics,
    PathDegraded,
    RoleRule,
    Settings,
)
from tsmon.config.values import ConfigError, Secret, duration, duration_text, redact_url

__all__ = [
    "DEFAULT_FILE",
    "FLAGS",
    "NEED_RESTART",
    "Auth",
    "Channel",
    "ConfigError",
    "Flapping",
    "Heartbeat",
    "History",
    "InfluxSettings",
    "Loaded",
    "Log",
    "Maintenance",
    "Metrics",
    "PathDegraded",
    "RoleRule",
    "Secret",
    "Settings",
    "admin_socket_places",
    "admin_sockets",
    "duration",
    "duration_text",
    "find_file",
    "flag_name",
    "is_loopback",
    "load",
    "load_all",
    "redact_url",
    "setting_keys",
    "state_dir",
    "variable_name",
]
