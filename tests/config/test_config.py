"""Settings: every way to say one, every way to say it wrong."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tsmon import config
from tsmon.config import (
    ConfigError,
    Secret,
    Settings,
    duration,
    duration_text,
    load,
    load_all,
    redact_url,
    setting_keys,
    state_dir,
)
from tsmon.config.loading import _build, _put, _take_table

DOCS = ROOT / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tsmon installed on the machine that runs the tests is not ours."""
    monkeypatch.setattr("tsmon.config.loading.DEFAULT_FILE", tmp_path / "none.toml")


def from_toml(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    file = tmp_path / "tsmon.toml"
    file.write_text(text, "utf-8")
    return load(file, environ or {}, {})


def refusal(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        from_toml(tmp_path, text, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_the_contracts() -> None:
    settings = load(None, {}, {})
    assert settings == Settings()
    assert settings.source.reveal() == "auto"
    assert (settings.source_timeout, settings.source_max_bytes, settings.ping_timeout) == (10, 128 << 20, 5)
    assert settings.address == ("127.0.0.1", 8000)
    intervals = (
        settings.poll_interval,
        settings.ping_interval,
        settings.collect_interval,
        settings.check_interval,
        settings.report_interval,
    )
    assert intervals == (15, 60, 300, 120, 3600)
    assert (settings.offline_after, settings.blind_after, settings.reconnect_grace) == (120, 120, 30)
    flapping = settings.flapping
    assert (flapping.changes, flapping.window, flapping.settle) == (6, 1800, 600)
    assert settings.key_expiry_steps == (14 * 86400, 3 * 86400, 86400)
    assert (settings.path_degraded.latency, settings.path_degraded.relay) == (None, False)
    assert (settings.project_name, settings.default_roles, settings.roles) == ("chocolate-factory", True, ())
    assert settings.exclude == ("sharee", "funnel", "mullvad")
    assert (settings.retention, settings.latency_retention) == (400 * 86400, 90 * 86400)
    assert settings.history.uptime_source == "auto"
    assert (settings.influx.url, settings.influx.bucket) == ("", "analytics")
    assert (settings.influx.outbox_age, settings.influx.outbox_bytes) == (7 * 86400, 256 << 20)
    assert (settings.group_wait, settings.remind_every) == (10, 86400)
    assert (settings.heartbeat.url, settings.heartbeat.interval) == (None, 60)
    assert (settings.auth.mode, settings.metrics.per_node) == ("", True)
    control = settings.control
    assert (control.kind, control.interval, control.keys, control.device_joined) == ("", 300, False, False)
    assert (settings.log.level, settings.log.format) == ("info", "auto")
    assert settings.monitor_name


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "tsmon.toml"
    file.write_text('poll_interval = "20s"\nping_interval = "20s"\ncheck_interval = "20s"\n')
    environ = {"TSMON_POLL_INTERVAL": "30s", "TSMON_PING_INTERVAL": "30s", "TSMON_CONFIG": str(file)}
    loaded = load_all(config.find_file(None, environ), environ, {"poll_interval": "40s", "listen": None})
    settings = loaded.settings
    assert (settings.poll_interval, settings.ping_interval) == (40, 30)
    assert (settings.check_interval, settings.report_interval) == (20, 3600)
    assert loaded.origins == {
        "poll_interval": "--poll-interval",
        "ping_interval": "TSMON_PING_INTERVAL",
        "check_interval": str(file),
    }
    assert loaded.file == file


def test_the_default_file_is_read_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "etc.toml"
    file.write_text('project_name = "bakery"')
    monkeypatch.setattr("tsmon.config.loading.DEFAULT_FILE", file)
    assert load(None, {}, {}).project_name == "bakery"


FULL = """
source = "unix:///run/tailscale/tailscaled.sock"
source_max_bytes = "1 MiB"
listen = "[::1]:0"
exclude = []
key_expiry_steps = ["1d", "7d", "1d"]
allowed_hosts = ["tsmon.example.ts.net"]
public_url = "https://host.example/watch/"
[flapping]
changes = 4
window = "1h30m"
[path_degraded]
latency = "250ms"
relay = true
[influx]
url = "http://localhost:8086"
token = "influx-secret"
org = "acme"
tags = { site = "home" }
outbox_bytes = 1000000
[heartbeat]
url = "https://hc.example/secret-path"
[control]
kind = "headscale"
url = "https://hs.example"
token = "control-secret"
[auth]
mode = "tailnet"
users = ["alice@example.com"]
trusted_networks = ["172.16.0.0/12", "127.0.0.1"]
[[roles]]
name = "db"
hosts = ["db*", "*-sql"]
node_type = "production"
critical = true
alert = "critical"
offline_after = "30s"
ping = false
key_expiry_steps = []
[[notify]]
name = "phone"
url = "ntfy://ntfy.example/secret-topic"
min_severity = "critical"
remind_every = "1h"
[[maintenance]]
weekly = "Sat 23:00-01:00"
time_zone = "Europe/Berlin"
[[maintenance]]
start = 2026-12-24T20:00:00
end = "2026-12-25T01:00:00"
hosts = ["db*"]
"""


def test_a_full_file(tmp_path: Path) -> None:
    settings = from_toml(tmp_path, FULL)
    assert settings.source.reveal() == "unix:///run/tailscale/tailscaled.sock"
    assert settings.source_max_bytes == 1 << 20
    assert settings.address == ("::1", 0)
    assert settings.exclude == ()
    assert settings.key_expiry_steps == (7 * 86400, 86400)
    assert settings.path_prefix == "/watch"
    assert (settings.flapping.changes, settings.flapping.window) == (4, 5400)
    assert (settings.path_degraded.latency, settings.path_degraded.relay) == (0.25, True)
    assert settings.influx.token == Secret("influx-secret")
    assert settings.influx.tags == {"site": "home"}
    assert settings.influx.outbox_bytes == 1_000_000
    assert (settings.control.kind, settings.control.interval) == ("headscale", 300)
    role = settings.roles[0]
    assert (role.hosts, role.offline_after, role.ping) == (("db*", "*-sql"), 30, False)
    assert (role.critical, role.key_expiry_steps) == (True, ())
    assert settings.notify[0].url.reveal() == "ntfy://ntfy.example/secret-topic"
    assert (settings.notify[0].min_severity, settings.notify[0].remind_every) == ("critical", 3600)
    assert settings.maintenance[0].weekly == "Sat 23:00-01:00"
    assert settings.maintenance[1].start == "2026-12-24T20:00:00"


def test_no_secret_shows_itself(tmp_path: Path) -> None:
    settings = from_toml(tmp_path, FULL)
    shown = f"{settings} {settings!r} {settings.influx.token:>5} {settings.notify} {settings.heartbeat.url}"
    assert not [
        text for text in ("influx-secret", "secret-topic", "secret-path", "control-secret") if text in shown
    ]
    assert "***" in shown
    assert settings.influx.token
    assert not Secret("")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    with pytest.raises(TypeError):
        json.dumps(settings.influx.token)


ENVIRONMENT: list[tuple[str, str, str, Any]] = [
    ("source", "TSMON_SOURCE", "http://sidecar:8765", Secret("http://sidecar:8765")),
    ("flapping.changes", "TSMON_FLAPPING_CHANGES", "9", 9),
    ("default_roles", "TSMON_DEFAULT_ROLES", "No", False),
    ("exclude", "TSMON_EXCLUDE", "funnel, mullvad", ("funnel", "mullvad")),
    ("exclude", "TSMON_EXCLUDE", "[]", ()),
    ("exclude", "TSMON_EXCLUDE", "", ("sharee", "funnel", "mullvad")),
    ("key_expiry_steps", "TSMON_KEY_EXPIRY_STEPS", "2d,9d", (9 * 86400, 2 * 86400)),
    ("influx.tags", "TSMON_INFLUX_TAGS", "site=home, rack=2", {"site": "home", "rack": "2"}),
    ("metrics.per_node", "TSMON_METRICS_PER_NODE", "0", False),
    ("path_degraded.latency", "TSMON_PATH_DEGRADED_LATENCY", "80ms", 0.08),
    ("log.format", "TSMON_LOG_FORMAT", "json", "json"),
    ("influx.outbox_bytes", "TSMON_INFLUX_OUTBOX_BYTES", "1GB", 10**9),
]


@pytest.mark.parametrize(("key", "name", "text", "value"), ENVIRONMENT)
def test_environment(key: str, name: str, text: str, value: Any) -> None:
    found: Any = load(None, {name: text}, {})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("key", sorted(setting_keys()))
def test_every_setting_has_a_variable(key: str) -> None:
    """A text that no setting takes is refused under the variable's own name: so it was read."""
    with pytest.raises(ConfigError, match=f"^{config.variable_name(key)}"):
        load(None, {config.variable_name(key): "\x1b"}, {})


def test_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef\n")
    in_file = from_toml(tmp_path, f'[auth]\nmode = "token"\ntoken_file = "{secret}"')
    assert in_file.auth.token == Secret("0123456789abcdef")
    loaded = load_all(None, {"TSMON_AUTH_MODE": "token", "TSMON_AUTH_TOKEN_FILE": str(secret)}, {})
    assert loaded.settings.auth.token == Secret("0123456789abcdef")
    assert loaded.origins["auth.token"] == "TSMON_AUTH_TOKEN_FILE"
    url = tmp_path / "url"
    url.write_text("json://user:password@host/")
    settings = from_toml(
        tmp_path, f'[[notify]]\nname = "a"\nurl_file = "{url}"\nhmac_secret_file = "{secret}"'
    )
    assert settings.notify[0].url.reveal() == "json://user:password@host/"
    assert settings.notify[0].hmac_secret == Secret("0123456789abcdef")


def test_a_secret_file_that_is_wrong(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path, '[auth]\ntoken_file = "/nowhere/token"')
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in refusal(tmp_path, f'[auth]\ntoken_file = "{binary}"')
    binary.write_bytes(b"one\ntwo")
    assert "must hold one line" in refusal(tmp_path, f'[auth]\ntoken_file = "{binary}"')
    both = refusal(tmp_path, f'[auth]\ntoken = "x"\ntoken_file = "{binary}"')
    assert "auth.token_file: is given beside auth.token" in both
    environ = {"TSMON_AUTH_TOKEN": "x", "TSMON_AUTH_TOKEN_FILE": "/y"}
    assert "TSMON_AUTH_TOKEN_FILE: is set beside TSMON_AUTH_TOKEN" in refusal(tmp_path, "", environ)


def test_the_single_channel_of_the_environment(tmp_path: Path) -> None:
    text = '[[notify]]\nname = "phone"\nurl = "ntfy://topic"'
    settings = from_toml(tmp_path, text, {"TSMON_NOTIFY_URL": "webhook+https://hook.example/x"})
    assert [channel.name for channel in settings.notify] == ["phone", "default"]
    url = tmp_path / "url"
    url.write_text("tgram://123/456")
    loaded = load_all(None, {"TSMON_NOTIFY_URL_FILE": str(url)}, {})
    assert loaded.settings.notify[0].url == Secret("tgram://123/456")
    assert loaded.origins["notify"] == "TSMON_NOTIFY_URL"
    assert load(None, {"TSMON_NOTIFY_URL": ""}, {}).notify == ()


def test_unknown_variables_are_only_warned_about() -> None:
    environ = {
        "TSMON_POL_INTERVAL": "1s",
        "TSMON_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "TSMON_SIDECAR_HOSTS": "x",
        "TSMON_TEST_X": "x",
        "TSMON_E2E_X": "x",
        "TSMON_URL": "http://x",
        "TSMON_TOKEN": "x",
        "HOME": "/",
    }
    warnings = load_all(None, environ, {}).warnings
    assert len(warnings) == 2
    assert warnings[0].startswith(
        "TSMON_POL_INTERVAL: there is no such setting; did you mean TSMON_POLL_INTERVAL?"
    )
    assert warnings[1].startswith("TSMON_PORT_8000_TCP: there is no such setting")
    assert "10.0.0.1" not in warnings[1]


BAD: list[tuple[str, str]] = [
    ("poll_intervall = 1", "poll_intervall: there is no such setting; did you mean poll_interval?"),
    ('[influx]\nurll = "x"', "influx.urll: there is no such setting; did you mean url?"),
    ("zzz = 1", "zzz: there is no such setting"),
    ("poll_interval = 15", 'poll_interval: takes a duration in quotes, as "15s"'),
    ('poll_interval = "15"', "poll_interval: takes a duration"),
    ('poll_interval = "15 s"', "poll_interval: takes a duration"),
    ('poll_interval = "-15s"', "poll_interval: takes a duration"),
    ('poll_interval = "0.5s"', "poll_interval: must be at least 1s"),
    ('poll_interval = "900000000d"', "poll_interval: is longer than a hundred years"),
    ('retention = "1h"', "retention: must be at least 1d"),
    ("poll_interval = []", "poll_interval: takes a duration"),
    ("key_expiry_steps = 3", "key_expiry_steps: takes a list of durations"),
    ('key_expiry_steps = ["3"]', "key_expiry_steps: takes a duration"),
    ("source_max_bytes = true", "source_max_bytes: takes a number of bytes"),
    ("source_max_bytes = 3.5", "source_max_bytes: takes a number of bytes"),
    ('source_max_bytes = "3 parsecs"', "source_max_bytes: takes a number of bytes"),
    ('source_max_bytes = "1b"', "source_max_bytes: must be at least 1024 bytes"),
    ("[flapping]\nchanges = 1", "flapping.changes: takes a whole number from 2 to 1000"),
    ("[flapping]\nchanges = true", "flapping.changes: takes a whole number"),
    ("flapping = 3", "flapping: takes a table, as [flapping]"),
    ("default_roles = 'perhaps'", "default_roles: takes true or false"),
    ("project_name = 3", "project_name: takes a text in quotes"),
    ('project_name = "a\\u001b[2Jb"', "project_name: must be one line without control characters"),
    ('exclude = ["mulvad"]', "exclude: takes one of sharee, funnel, mullvad"),
    ("exclude = 3", "exclude: takes a list of texts"),
    ('[log]\nlevel = "loud"', "log.level: takes one of debug, info, warning, error"),
    ('source = "localhost:8765"', "source: takes auto, http://HOST:PORT"),
    ('source = "http://"', "source: takes auto"),
    ('source = "http://[::1"', "source: takes auto"),
    ('source = "http://host:99999"', "source: takes auto"),
    ('source = "unix://tailscaled.sock"', "source: takes auto"),
    ('source = "unix:///"', "source: takes auto"),
    ('listen = "8000"', "listen: takes HOST:PORT"),
    ('listen = "127.0.0.1:x"', "listen: takes HOST:PORT"),
    ('listen = "127.0.0.1:65536"', "listen: takes HOST:PORT"),
    ('listen = "::1:8000"', "listen: takes HOST:PORT"),
    ('listen = "0.0.0.0:8000"', "listen: 0.0.0.0 is not loopback: say who may read with auth.mode"),
    ('listen = "box.example:8000"', "listen: box.example is not loopback"),
    ('[auth]\nmode = "token"', "auth.token: is needed with auth.mode token"),
    ('[auth]\nmode = "token"\ntoken = "short-secret"', "auth.token: is shorter than 16 characters"),
    ('[auth]\nmode = "tailnet"', "auth.users: is needed with auth.mode tailnet"),
    ('[auth]\ntags = ["web"]', "auth.tags: 'web' can match no tag"),
    ('[auth]\ntrusted_networks = ["lan"]', "auth.trusted_networks: 'lan' is no network"),
    ('allowed_hosts = ["https://x"]', "allowed_hosts: 'https://x' is no host name"),
    ('public_url = "host.example"', "public_url: takes a URL"),
    ('[control]\ntoken = "x"', "control.kind: is needed with control.token: tailscale or headscale"),
    ('[control]\nkind = "netbird"', "control.kind: takes one of tailscale, headscale"),
    ('[control]\nkind = "tailscale"', "control.token: is missing: give an access token, or client_id and"),
    ('[control]\nkind = "headscale"', "control.url: is needed with headscale, as https://"),
    ('[control]\nkind = "headscale"\nurl = "h:80"\ntoken = "x"', "control.url: takes a URL"),
    ('[control]\nkind = "tailscale"\nurl = "http://u:p@h"\ntoken = "x"', "control.url: must hold no user"),
    (
        '[control]\nkind = "headscale"\nurl = "https://h"\nclient_id = "x"',
        "control.client_id: headscale has no OAuth clients: give an API key",
    ),
    ('[control]\nkind = "tailscale"\nclient_id = "x"', "control.client_secret: is missing: an OAuth client"),
    ('[control]\nkind = "tailscale"\nclient_secret = "x"', "control.client_id: is missing: an OAuth client"),
    (
        '[control]\nkind = "tailscale"\nclient_id = "x"\ntoken = "y"',
        "control.token: is given beside control.client_id: keep one",
    ),
    (
        '[control]\nkind = "tailscale"\ntoken = "a b"',
        "control.token: holds characters that no credential has",
    ),
    (
        '[control]\nkind = "tailscale"\ntoken = "tskey-client-k1-x"',
        "control.token: is an OAuth client's: give it as",
    ),
    (
        '[control]\nkind = "tailscale"\ntoken = "tskey-auth-k1-x"',
        "control.token: is a key by which nodes join",
    ),
    ('[control]\nkind = "tailscale"\ntoken = "hskey-api-k1-x"', "control.token: is no key of tailscale"),
    (
        '[control]\nkind = "headscale"\nurl = "http://h:8080"\ntoken = "tskey-api-k1-x"',
        "control.token: is no key of headscale",
    ),
    ('[influx]\nurl = "localhost:8086"\norg = "x"', "influx.url: takes a URL"),
    ('[influx]\nurl = "http://u:p@h"\norg = "x"', "influx.url: must hold no user"),
    ('[influx]\nurl = "http://h:8086"', "influx.org: is needed with influx.url"),
    ('[influx]\ntags = { os = "x" }', "influx.tags: 'os' cannot be a tag"),
    ("[influx]\ntags = { site = 3 }", "influx.tags: takes pairs of texts"),
    ('[heartbeat]\nurl = "secret"', "heartbeat.url: takes a URL"),
    ("roles = 3", "roles: takes tables, as [[roles]]"),
    ("[[roles]]\ncritical = true", "roles[0].name: is missing"),
    ('[[roles]]\nname = "a b"', "roles[0].name: takes letters"),
    ('[[roles]]\nname = "a"\n[[roles]]\nname = "a"', "roles[1].name: 'a' is taken"),
    ('[[roles]]\nname = "a"\nhost = ["x"]', "roles[0].host: there is no such setting; did you mean hosts?"),
    ('[[roles]]\nname = "a"\nkey = "a/b"', "roles[0].key: takes letters"),
    ('[[roles]]\nname = "a"\nalert = "loud"', "roles[0].alert: takes one of none, warning, critical"),
    ('[[roles]]\nname = "a"\ntags = ["web"]', "roles[0].tags: 'web' can match no tag"),
    ('[[notify]]\nname = "a"', "notify[0].url: is missing"),
    ('[[notify]]\nname = "a"\nurl = "topsecret"', "notify[0].url: takes an Apprise URL"),
    ('[[notify]]\nname = "a"\nurl = "webhook+ftp://topsecret"', "notify[0].url: takes a URL"),
    ("[[maintenance]]\n", "maintenance[0]: takes either start and end, or weekly"),
    ('[[maintenance]]\nweekly = "sat 02:00-04:00"\nend = "x"', "maintenance[0]: takes either"),
    ('[[maintenance]]\nweekly = "someday"', "maintenance[0].weekly: takes a day and two times"),
    ('[[maintenance]]\nweekly = "sat 24:00-04:00"', "maintenance[0].weekly: has a time of day beyond 23:59"),
    (
        '[[maintenance]]\nweekly = "sat 02:00-02:00"',
        "maintenance[0].weekly: begins and ends at the same time",
    ),
    ('[[maintenance]]\nweekly = "sat 02:00-04:00"\ntime_zone = "Mars/Base"', "maintenance[0].time_zone:"),
    ('[[maintenance]]\nstart = "noon"\nend = "later"', "maintenance[0]: start and end take times"),
    (
        '[[maintenance]]\nstart = "2026-01-02T00:00:00Z"\nend = "2026-01-02T01:00:00+05:00"',
        "maintenance[0]: end must come after start",
    ),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_wrong_setting_is_named_with_the_remedy(tmp_path: Path, text: str, says: str) -> None:
    message = refusal(tmp_path, text)
    assert says in message
    assert "secret" not in message.replace("client_secret", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = ", "is not valid TOML"),
        (b"\xff", "is not UTF-8 text"),
        (b"a = " + b"[" * 10_000, "is nested too deeply"),
        (b"ping_nodes = " + b"9" * 5_000, "thousands of digits"),
        (b"#" * 2_000_000, "is larger than 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_settings_file(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load(file, {}, {})
    assert str(caught.value).startswith(str(file))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file \(tsmon config init makes one\)"):
        load(tmp_path / "none.toml", {}, {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {}, {})


def test_an_error_names_the_file_the_variable_or_the_flag(tmp_path: Path) -> None:
    assert refusal(tmp_path, "poll_interval = 3").startswith(f"{tmp_path / 'tsmon.toml'}: poll_interval: ")
    assert refusal(tmp_path, "", {"TSMON_LOG_LEVEL": "x"}).startswith("TSMON_LOG_LEVEL: ")
    assert refusal(tmp_path, "", {"TSMON_ROLES": "x"}).startswith(
        "TSMON_ROLES: is set in the file, as [[roles]]"
    )
    assert refusal(tmp_path, "", {"TSMON_INFLUX_TAGS": "x"}).startswith("TSMON_INFLUX_TAGS: takes pairs")
    with pytest.raises(ConfigError, match=r"^--log-level: takes one of"):
        load(None, {}, {"log.level": "x"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("auto", "auto"),
        ("unix:///run/tailscaled.sock", "unix:///run/tailscaled.sock"),
        ("https://user:password@host.example:8443/path?token=x", "https://host.example:8443"),
        ("http://[::1]:8765/x", "http://[::1]:8765"),
        ("webhook+https://hook.example/secret", "webhook+https://hook.example"),
        ("tgram://bottoken/chat", "tgram://***"),
        ("http://[broken", "***"),
        ("secret", "***"),
    ],
)
def test_a_url_shows_no_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(Secret(url)) == shown


def test_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": str(tmp_path)}
    assert state_dir(Settings(state_dir="/data"), home) == Path("/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_dir(Settings(state_dir="~/data"), home) == tmp_path / "data"
    assert state_dir(Settings(), {"STATE_DIRECTORY": "/var/lib/x:/var/lib/y"}) == Path("/var/lib/x")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert state_dir(Settings(), home) == tmp_path / ".local/state/tsmon"
    assert state_dir(Settings(), {"XDG_STATE_HOME": "/state"}) == Path("/state/tsmon")
    monkeypatch.setattr("os.access", lambda *_: True)
    assert state_dir(Settings(), home) == Path("/var/lib/tsmon")


@given(st.integers(0, 100 * 365 * 86400 * 1000))
def test_durations_read_what_they_write(milliseconds: int) -> None:
    text = duration_text(milliseconds / 1000)
    assert math.isclose(duration(text, "x"), milliseconds / 1000, abs_tol=0.0006)


def words_of(call: Callable[[], object]) -> str:
    """What ConfigError says, "" when there is none."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    words = words_of(lambda: duration(text, "x"))
    assert words.startswith("x: ") or duration(text, "x") >= 0


_toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(setting_keys())), _toml_values)
def test_no_value_of_any_setting_is_more_than_refused(key: str, value: Any) -> None:
    """Whatever stands in the file, the answer is settings or one line."""
    values: dict[str, Any] = {}
    _put(values, key, value)
    words = words_of(lambda: _build(Settings, _take_table(values, Settings, "", ""), "", {}))
    assert words.isprintable()


def documented() -> str:
    return DOCS.read_text("utf-8")


def test_every_setting_is_documented() -> None:
    text = documented()
    missing = [key for key in setting_keys() if f"`{key}`" not in text]
    for table, struct in (
        ("roles", config.RoleSettings),
        ("notify", config.ChannelSettings),
        ("maintenance", config.MaintenanceSettings),
    ):
        missing += [f"{table}.{name}" for name in struct.__struct_fields__ if f"`{name}`" not in text]
    assert not missing


def test_every_flag_is_documented() -> None:
    assert not [key for key in config.FLAGS if f"`{config.flag_name(key)}`" not in documented()]


def test_every_example_of_the_docs_is_a_sound_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tsmon.config.loading._read_secret", lambda *_: Secret("https://host.example/0123456789abcdef")
    )
    blocks = [block.split("```")[0] for block in documented().split("```toml\n")[1:]]
    assert len(blocks) >= 5
    for block in blocks:
        from_toml(tmp_path, block)


def test_a_secret_file_without_end_is_refused(tmp_path: Path) -> None:
    """/dev/zero was read until memory ended."""
    assert "is larger than" in refusal(tmp_path, '[auth]\nmode = "token"\ntoken_file = "/dev/zero"')


def test_a_size_of_thousands_of_hexadecimal_digits_is_refused(tmp_path: Path) -> None:
    assert "takes a number of bytes" in refusal(tmp_path, f"source_max_bytes = 0x{'f' * 5000}")
