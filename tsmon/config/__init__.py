"""Settings: TOML file, environment, flags and `_FILE` secrets; validated and frozen.

Durations are seconds here and written `15s`, `2m`, `1h`, `14d`, `500ms` outside.
"""

from tsmon.config.checks import is_loopback
from tsmon.config.loading import (
    DEFAULT_FILE,
    LoadedSettings,
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
    AuthSettings,
    ChannelSettings,
    FlappingSettings,
    HeartbeatSettings,
    HistorySettings,
    InfluxSettings,
    LogSettings,
    MaintenanceSettings,
    MetricsSettings,
    PathDegradedSettings,
    ReportSettings,
    RoleSettings,
    Settings,
)
from tsmon.config.values import BAD_CONFIGURATION, ConfigError, Secret, duration, duration_text, redact_url

__all__ = [
    "BAD_CONFIGURATION",
    "DEFAULT_FILE",
    "FLAGS",
    "NEED_RESTART",
    "AuthSettings",
    "ChannelSettings",
    "ConfigError",
    "FlappingSettings",
    "HeartbeatSettings",
    "HistorySettings",
    "InfluxSettings",
    "LoadedSettings",
    "LogSettings",
    "MaintenanceSettings",
    "MetricsSettings",
    "PathDegradedSettings",
    "ReportSettings",
    "RoleSettings",
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
