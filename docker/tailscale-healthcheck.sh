#!/bin/sh
# HEALTHCHECK of the sidecar's image: exit code 0 when this container has a network and its Tailscale answers: by the
# HTTP server, or where that is off by the CLI. That a node is logged out is no reason to restart.
set -u

# The device stands first in the routes of IPv4 and last, as the tenth word, in those of IPv6. Loopback and the
# tailnet's own device lead nowhere: they are what a container has left that lost its network.
cat "${TSMON_ROUTES:-/proc/net}/route" "${TSMON_ROUTES:-/proc/net}/ipv6_route" 2>/dev/null |
    awk '{ device = NF == 10 ? $NF : $1 }
        device !~ /^(Iface|lo|tailscale[0-9]+)$/ { found = 1 }
        END { exit !found }' ||
    { echo "this container has no network: restart it" >&2; exit 1; }

if [ "${TSMON_SIDECAR:-on}" = off ]; then
    exec "${TAILSCALE_BIN:-tailscale}" ${TS_SOCKET:+"--socket=$TS_SOCKET"} status --json --peers=false >/dev/null
fi
exec wget -q -O /dev/null "http://${TSMON_SIDECAR_BIND:-127.0.0.1}:${TSMON_SIDECAR_PORT:-8765}/healthz"
