#!/bin/sh
# Entry point of the sidecar: the image's own containerboot, and the HTTP proxy beside it.
#
# Signals go on to containerboot; the listener is started again whenever it ends; when containerboot ends (it
# does whenever Tailscale stops) the container ends with its exit code, and the runtime starts it again.
set -u

boot=${TSMON_SIDECAR_BOOT:-/usr/local/bin/containerboot}
server=${TSMON_SIDECAR_SERVER:-/usr/local/bin/tailscale-http-server.sh}
pause=${TSMON_SIDECAR_PAUSE:-1}

"$boot" &
boot_pid=$!

keep_listening() {
    listener=
    trap 'kill "$listener" 2>/dev/null; exit 0' TERM INT
    while :; do
        sh "$server" &
        listener=$!
        wait "$listener"
        echo "tailscale-start: the listener ended, starting it again" >&2
        sleep "$pause"
    done
}
keep_listening &
listen_pid=$!

for signal in TERM INT HUP; do
    # shellcheck disable=SC2064 # expanded now: each trap names its own signal
    trap "kill -s $signal $boot_pid 2>/dev/null" "$signal"
done

# A trapped signal ends `wait` early; wait until containerboot is really gone. As process 1 the shell reaps
# every child that ends meanwhile.
code=0
while :; do
    wait "$boot_pid"
    code=$?
    kill -0 "$boot_pid" 2>/dev/null || break
done
kill "$listen_pid" 2>/dev/null
exit "$code"
