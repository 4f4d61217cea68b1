#!/bin/sh
# Entry point of the sidecar's container: the image's own containerboot, and the HTTP server beside it.
#
# TSMON_SIDECAR=off leaves the server out: who reads tailscaled's socket needs none.
#
# Signals go on to containerboot. The server is started again whenever it ends. When containerboot ends, as it does
# whenever Tailscale stops, the container ends with its exit code and the runtime starts it again.
set -u

boot=${TSMON_SIDECAR_BOOT:-/usr/local/bin/containerboot}
server=${TSMON_SIDECAR_SERVER:-/usr/local/bin/tailscale-http-server.sh}
pause=${TSMON_SIDECAR_PAUSE:-1} # seconds before the server is started again
[ "${TSMON_SIDECAR:-on}" != off ] || exec "$boot"

keep_listening() {
    # What answers the network needs no keys.
    unset TS_AUTHKEY TS_AUTH_KEY TS_CLIENT_ID TS_CLIENT_SECRET TS_ID_TOKEN
    trap 'kill "$!" 2>/dev/null; exit 0' TERM
    trap '' HUP INT # the parent says when
    while :; do
        sh "$server" &
        wait "$!"
        echo "tailscale-start: the HTTP server ended, starting it again" >&2
        sleep "$pause" &
        wait "$!"
    done
}

"$boot" &
boot_pid=$!
# INT goes on as TERM, which containerboot takes alike: a shell starts what runs beside it with INT ignored.
trap 'kill -s TERM "$boot_pid" 2>/dev/null' TERM INT
trap 'kill -s HUP "$boot_pid" 2>/dev/null' HUP
keep_listening &
listen_pid=$!

# A trapped signal ends `wait` early: wait until containerboot is really gone. Being process 1 the shell reaps
# orphans meanwhile.
while :; do
    wait "$boot_pid"
    code=$?
    kill -0 "$boot_pid" 2>/dev/null || break
done
kill "$listen_pid" 2>/dev/null
exit "$code"
