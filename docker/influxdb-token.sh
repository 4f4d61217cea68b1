#!/bin/bash
# Run once by InfluxDB's image after its set-up: a token for tsmon that reads and writes its bucket and nothing else.
# To make a new one: docker compose exec -u influxdb influxdb bash /docker-entrypoint-initdb.d/influxdb-token.sh
set -euo pipefail
umask 027
file=${1:-/run/tsmon/influx-token}

id_of() { influx "$1" list -n "$2" --hide-headers | cut -f 1; }
bucket=${DOCKER_INFLUXDB_INIT_BUCKET_ID:-$(id_of bucket "$DOCKER_INFLUXDB_INIT_BUCKET")}
org=${DOCKER_INFLUXDB_INIT_ORG_ID:-$(id_of org "$DOCKER_INFLUXDB_INIT_ORG")}

# By the bucket's id: given its name InfluxDB makes a token for every bucket. It can be read only now.
made=$(influx auth create --json --description tsmon --org-id "$org" --read-bucket "$bucket" --write-bucket "$bucket")
token=$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' <<<"$made")
[ -n "$token" ] || { echo "influxdb-token: InfluxDB made no token" >&2; exit 1; }
printf %s "$token" >"$file.new"
mv "$file.new" "$file"
