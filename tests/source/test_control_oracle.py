"""Tailscale's devices as a second, independent reader of the API's documents understands them (`tailscale` of
PyPI)."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tailscale.models import Device as Read

from tests.support.control_api import TOKEN, YEAR_1, ScriptedControl, device
from tsmon.base.clock import Clock
from tsmon.config import ControlSettings, Secret
from tsmon.demo.servers import serving
from tsmon.source.control import make_control
from tsmon.source.control.devices import Device

TIMES = st.one_of(
    st.just(""),
    st.integers(10**8, 3 * 10**9).map(
        lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ),
)
PREFIXES = st.lists(st.sampled_from(["10.0.0.0/8", "192.0.2.0/24", "fd00::/8"]), unique=True)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "created": TIMES,
            "expires": st.one_of(st.just(YEAR_1), TIMES.filter(bool)),
            "keyExpiryDisabled": st.booleans(),
            "authorized": st.booleans(),
            "isExternal": st.booleans(),
            "isEphemeral": st.booleans(),
            "updateAvailable": st.booleans(),
            "connectedToControl": st.booleans(),
            "tags": st.lists(st.sampled_from(["tag:server", "tag:db"]), unique=True),
            "enabledRoutes": PREFIXES,
            "advertisedRoutes": PREFIXES,
            "tailnetLockError": st.sampled_from(["", "needs a signature"]),
        }
    ),
    max_size=5,
)


def seconds(at: datetime | None) -> float | None:
    """Unix seconds."""
    return None if at is None else at.astimezone(UTC).timestamp()


def of(found: Device) -> dict[str, object]:
    return {
        "created": found.created,
        "approved": found.approved,
        "external": found.external,
        "ephemeral": found.ephemeral,
        "update": found.update_available,
        "online": found.online,
        "expiry_disabled": found.expiry_disabled,
        "tags": sorted(found.tags),
        "approved_routes": sorted(found.routes_approved or ()),
        "advertised": sorted(found.routes_advertised or ()),
        "locked": bool(found.locked_out),
        "ips": list(found.ips),
        "user": found.user,
    }


def of_oracle(read: Read) -> dict[str, object]:
    return {
        "created": seconds(read.created),
        "approved": read.authorized,
        "external": read.is_external,
        "ephemeral": read.is_ephemeral,
        "update": read.update_available,
        "online": read.connected_to_control,
        "expiry_disabled": read.key_expiry_disabled,
        "tags": sorted(read.tags),
        "approved_routes": sorted(read.enabled_routes),
        "advertised": sorted(read.advertised_routes),
        "locked": read.tailnet_lock_error is not None,
        "ips": read.addresses,
        "user": read.user,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
async def test_both_readers_understand_the_same(rows: list[dict[str, object]]) -> None:
    script = ScriptedControl()
    script.devices = [device(f"m{number}", number, **row) for number, row in enumerate(rows)]
    expected = {row["nodeId"]: of_oracle(Read.from_dict(dict(row))) for row in script.devices}
    async with serving(script.app()) as url:
        api = make_control(ControlSettings(kind="tailscale", url=url, token=Secret(TOKEN)), Clock())
        try:
            listing = await api.devices()
        finally:
            await api.close()
    assert {id_: of(found) for id_, found in listing.devices.items()} == expected
    assert listing.unreadable == 0
