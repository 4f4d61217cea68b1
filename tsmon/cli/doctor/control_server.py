"""What `tsmon doctor` says of the control server's API: whether its credential works, may read what tsmon
asks for, and may do no more."""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tsmon.base.clock import Clock
from tsmon.base.text import counted, length_words
from tsmon.cli.doctor.finding import Finding
from tsmon.config import ControlSettings, Settings, is_loopback

if TYPE_CHECKING:
    from tsmon.source.control import ControlApi
    from tsmon.source.control.devices import Listing
    from tsmon.source.status import Snapshot

_DEVICES = frozenset({"devices:core:read"})
_KEYS = frozenset({"auth_keys:read", "oauth_keys:read", "api_access_tokens:read"})
_SOON = 14 * 86400.0


async def examine_control(settings: Settings, snapshot: "Snapshot | None") -> list[Finding]:
    """One question about machines, one or two about credentials; nothing is changed."""
    from tsmon.source.control import make_control  # noqa: PLC0415 (start-up time)
    from tsmon.source.control.fault import ControlError  # noqa: PLC0415

    control = settings.control
    if not control.kind:
        return [Finding("control", "skipped", "not configured (docs/control.md says what it is for)")]
    api = make_control(control, Clock())
    try:
        listing = await api.devices()
    except ControlError as error:
        return [Finding("control", "failed", str(error), "docs/control.md says how to make a credential")]
    else:
        found = [_of_list(api, listing, snapshot), *_of_transport(control), *_of_scopes(api, control)]
        return found + await _of_credentials(api, control)
    finally:
        await api.close()


def _of_list(api: "ControlApi", listing: "Listing", snapshot: "Snapshot | None") -> Finding:
    known = len(listing.devices)
    says = f"{api.name} lists {counted(known, 'machine')}"
    if listing.unreadable:
        rows = "; ".join(listing.unreadable_named[:3])
        remedy = "please report this with the version of the server"
        return Finding(
            "control", "warning", f"{says}, and {listing.unreadable} that cannot be read: {rows}", remedy
        )
    if snapshot is None or not snapshot.self_id:
        return Finding("control", "ok", says)
    own = listing.devices.get(snapshot.self_id)
    if own is None or not set(own.ips) & set(snapshot.self_ips):
        remedy = "give a credential of this tailnet (control.token, control.url)"
        return Finding("control", "failed", f"{says}, but not this one: they are another tailnet's", remedy)
    seen = sum(id_ in snapshot.nodes for id_ in listing.devices)
    return Finding("control", "ok", f"{says}, of which this monitor sees {seen}")


def _of_transport(control: ControlSettings) -> list[Finding]:
    parts = urlsplit(control.url)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    says = f"the credential goes to {parts.hostname} unencrypted"
    return [Finding("control", "warning", says, "use https, unless the way there is a tailnet")]


def _of_scopes(api: "ControlApi", control: ControlSettings) -> list[Finding]:
    """Scopes that the credential lacks, or could do without."""
    if control.kind != "tailscale":
        return []
    if control.token:
        says = "an access token may do all that its user may"
        remedy = "an OAuth client with the scope devices:core:read is enough (docs/control.md)"
        return [Finding("control", "warning", says, remedy)]
    if api.scopes is None:
        return []
    wanted, has = _DEVICES | (_KEYS if control.keys else frozenset()), frozenset(api.scopes)
    found = []
    # A scope without `:read` reads, too, and one for all reads all.
    missing = {scope for scope in wanted if not {scope, scope.removesuffix(":read"), "all", "all:read"} & has}
    if missing:
        says = f"the OAuth client lacks the scope {', '.join(sorted(missing))}"
        found.append(Finding("control", "warning", says, "add it in the admin console"))
    if more := has - wanted:
        says = f"the OAuth client may do more than tsmon needs: {', '.join(sorted(more))}"
        remedy = f"make one with {', '.join(sorted(wanted))} only"
        found.append(Finding("control", "warning", says, remedy))
    return found or [Finding("control", "ok", f"the OAuth client may {', '.join(sorted(has))}, and no more")]


async def _of_credentials(api: "ControlApi", control: ControlSettings) -> list[Finding]:
    from tsmon.source.control.fault import ControlError  # noqa: PLC0415 (start-up time)

    try:
        credentials = await api.credentials(everyone=control.keys)
    except ControlError as error:
        remedy = "add the scope, or set control.keys = false" if control.keys else "docs/control.md"
        return [Finding("credential", "warning", f"its end is not known: {error}", remedy)]
    now = time.time()
    found = []
    for credential in credentials:
        if credential.expires is None or credential.expires <= now:
            continue
        left = credential.expires - now
        whose = "tsmon's own " if credential.own else ""
        says = f"{whose}{credential.kind} {credential.id} expires in {length_words(left)}"
        if left <= _SOON:
            found.append(Finding("credential", "warning", says, "make a new one in time"))
        elif credential.own:
            found.append(Finding("credential", "ok", says))
    return found
