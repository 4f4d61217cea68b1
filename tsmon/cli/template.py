"""The file that `tsmon config init` writes: every setting with its default, commented out, and roles
suggested from the tags and names of the tailnet. Pure."""

import json
import re
from collections.abc import Iterable

from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.source.status import NodeFacts, Snapshot

_TAGS = 20  # tags that get a suggestion
_NAMED = 8  # machines named in a comment; the others are counted
_LIKELY = {
    "db": "production",
    "sql": "production",
    "postgres": "production",
    "mysql": "production",
    "prod": "production",
    "production": "production",
    "web": "production",
    "api": "production",
    "gitlab": "git",
    "gitea": "git",
    "forgejo": "git",
    "staging": "development",
    "test": "development",
    "backup": "other",
    "nas": "other",
    "router": "other",
}
"""Words of machine names that often tell what a machine is for, which the default roles do not know."""

HEAD = """\
# tsmon's configuration. Everything is optional: what is commented out shows the default.
# All settings: docs/configuration.md. After a change: tsmon config check, then reload (SIGHUP).
"""

BODY = """\

# --- where the tailnet is read ------------------------------------------------------------------
{source}
# source_timeout = "10s"
# source_max_bytes = "128 MiB"
# ping_timeout = "5s"
# exclude = ["sharee", "funnel", "mullvad"]      # rows that are no machines of yours

# --- where tsmon answers, where it keeps things -------------------------------------------------
# listen = "127.0.0.1:8000"                      # any other address needs [auth]
# admin_group = ""                               # group that may run tsmon ack, silence, reload
# allowed_hosts = []                             # further names under which browsers may ask
# public_url = "https://tsmon.example.ts.net"    # for links in messages
# state_dir = "/var/lib/tsmon"
# retention = "400d"
# latency_retention = "90d"

# --- how often, how soon ------------------------------------------------------------------------
# poll_interval = "15s"
# ping_interval = "1m"
# collect_interval = "5m"
# check_interval = "2m"
# report_interval = "1h"
# offline_after = "2m"                           # how long a node is offline before it alerts
# blind_after = "2m"                             # how long tsmon cannot see before it alerts
# reconnect_grace = "30s"
# service_interval = "1m"                        # of checks = ["tcp:22"] in [[roles]]
# services = false                               # check the Tailscale Services seen from here
# diagnose = true                                # find out why control is lost
# key_expiry_steps = ["14d", "3d", "1d"]

# --- who is notified --------------------------------------------------------------------------------
# group_wait = "10s"
# remind_every = "24h"
# monitor = "home"                               # this tsmon's name in messages

# --- what the machines are for ------------------------------------------------------------------
{project}
# default_roles = true

# [log]
# level = "info"
# format = "auto"

# [auth]
# mode = "token"                                 # none, token or tailnet
# token_file = "/etc/tsmon/token"
# users = ["alice@example.com"]                  # with tailnet
# tags = ["tag:admin"]
# trusted_networks = ["172.16.0.0/12"]

# [flapping]
# changes = 6
# window = "30m"
# settle = "10m"

# [path_degraded]
# latency = "250ms"                              # off by default
# relay = false

# [history]
# uptime_source = "auto"

# [influx]
# url = "http://localhost:8086"                  # off without
# token_file = "/etc/tsmon/influx-token"
# org = "home"
# bucket = "analytics"
# tags = {{ site = "home" }}
# outbox_age = "7d"
# outbox_bytes = "256 MiB"

# [heartbeat]
# url_file = "/etc/tsmon/heartbeat-url"
# interval = "1m"

# [control]                                      # what the control server knows: off without a kind
# kind = "tailscale"                             # or headscale
# url = "https://api.tailscale.com"              # needed for headscale: where it answers
# token_file = "/etc/tsmon/control-token"        # or an OAuth client's client_id, client_secret_file
# interval = "5m"
# keys = false                                   # warn before any credential of the tailnet ends
# device_joined = false                          # alert for each new device

# [metrics]
# per_node = true

# [report]
# time_zone = "UTC"                              # whose months and days
# monthly = true                                 # each month's summary to the channels

# [[notify]]
# name = "phone"
# url_file = "/etc/tsmon/notify-url"             # an Apprise URL, webhook+https://…, alertmanager+http://…
# min_severity = "critical"

# [[maintenance]]
# weekly = "sat 02:00-04:00"
# time_zone = "Europe/Berlin"
# tags = ["tag:server"]
"""


def render(source: str, snapshot: Snapshot | None) -> str:
    """The file, for a tailnet that was read from `source`, or could not be (None)."""
    source_line = f"source = {_quoted(source)}" if source != "auto" else '# source = "auto"'
    project = '# project_name = "chocolate-factory"             # part of your production machines\' names'
    text = HEAD + BODY.format(source=source_line, project=project)
    if snapshot is None:
        return text + "\n# The tailnet could not be read, so no roles are suggested.\n"
    return text + suggest(list(snapshot.nodes.values()))


def suggest(nodes: list[NodeFacts]) -> str:
    """What the default roles make of the machines, and further roles that their tags and names suggest."""
    by_role: dict[str, list[str]] = {}
    rest: list[NodeFacts] = []
    classifier = Classifier(Settings())
    for node in sorted(nodes, key=lambda node: node.hostname):
        role = classifier.role(node)
        by_role.setdefault(role.name, []).append(node.hostname)
        if not role.critical and not node.shared:
            rest.append(node)
    lines = ["", "# The default roles make of this tailnet:"]
    roles = ("prod", "dev", "git", "server", "device")
    lines += [f"#   {name:8} {_named(by_role.get(name, []))}" for name in roles]
    if "prod" not in by_role:
        lines.append("# None is production: set project_name to a part of its name, or give it a role below.")
    tables = [*_by_name(rest), *_by_tag(rest)]
    if tables:
        lines += ["#", "# Roles that names and tags suggest. Remove the # of those that are right:"]
    return "\n".join(lines + tables) + "\n"


def _by_name(nodes: Iterable[NodeFacts]) -> list[str]:
    found: dict[str, list[str]] = {}
    for node in nodes:
        for word in re.findall(r"[a-z]+", node.hostname.casefold()):
            if word in _LIKELY:
                found.setdefault(word, []).append(node.hostname)
                break
    return [
        line
        for word, names in sorted(found.items())
        for line in _table(word, "hosts", sorted(set(names)), _LIKELY[word], names)
    ]


def _by_tag(nodes: Iterable[NodeFacts]) -> list[str]:
    found: dict[str, list[str]] = {}
    for node in nodes:
        for tag in node.tags:
            found.setdefault(tag, []).append(node.hostname)
    return [
        line
        for tag, names in sorted(found.items())[:_TAGS]
        for line in _table(tag.replace(":", "-"), "tags", [tag], "other", names)
    ]


def _table(name: str, condition: str, values: list[str], node_type: str, names: list[str]) -> list[str]:
    critical = node_type != "other"
    lines = [
        "",
        f"# [[roles]]                                    # {_named(names)}",
        f"# name = {_quoted(re.sub(r'[^A-Za-z0-9_.-]+', '-', name) or 'role')}",
        f"# {condition} = [{', '.join(_quoted(value) for value in values)}]",
        f"# node_type = {_quoted(node_type)}",
    ]
    if critical:
        lines.append("# critical = true")
    return [*lines, f"# alert = {_quoted('critical' if node_type == 'production' else 'warning')}"]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (", ".join(names[:_NAMED]) or "none") + more


def _quoted(text: str) -> str:
    """`text` as TOML's basic string, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
