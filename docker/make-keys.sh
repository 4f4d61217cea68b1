#!/bin/sh
# Makes the passwords and tokens of docker/compose.yml where they are missing; never changes one that is there.
# Arguments: the directory of InfluxDB's administrator and the one that tsmon reads.
set -eu
umask 077
admin=${1:-/admin}
tsmon=${2:-/tsmon}

# key FILE OWNER: 64 random hexadecimal digits.
key() {
    if [ ! -s "$1" ]; then
        od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$1.new"
        [ "$(wc -c <"$1.new")" -eq 64 ]
        mv "$1.new" "$1"
    fi
    chown "$2" "$1"
    chmod 0400 "$1"
}

# 1000 is influxdb in its image, 10001 tsmon in ours.
key "$admin/password" 1000:1000
key "$admin/token" 1000:1000
chown 1000:1000 "$admin"
chmod 0700 "$admin"
key "$tsmon/token" 10001:10001
# InfluxDB's init script puts its token for tsmon here: what it makes belongs to tsmon's group (the 2).
chown 1000:10001 "$tsmon"
chmod 2750 "$tsmon"
