#!/bin/sh
# The sidecar's HTTP proxy in front of the Tailscale CLI: socat listens, this script answers one request.
#
#   tailscale-http-server.sh            listen (socat forks this script for each connection)
#   tailscale-http-server.sh answer     answer the request on standard input
#
# Read-only: status, whois and ping are all that can be reached. POSIX sh (busybox ash, dash).
#
# TSMON_SIDECAR_PORT   8765          TSMON_SIDECAR_BIND   127.0.0.1
# TSMON_SIDECAR_HOSTS  names that the Host header may have beside loopback and addresses, parted by spaces
# TAILSCALE_BIN        tailscale     TS_SOCKET            the daemon's socket, when it is not where the CLI looks
set -u
umask 077
LC_ALL=C
export LC_ALL

port=${TSMON_SIDECAR_PORT:-8765}
bind=${TSMON_SIDECAR_BIND:-127.0.0.1}
tailscale=${TAILSCALE_BIN:-tailscale}
children=64
request_seconds=5
ping_seconds=5
cli_seconds=15
cr=$(printf '\r')

listen() {
    command -v socat >/dev/null || { echo "tailscale-http-server: socat is missing" >&2; exit 1; }
    case $port in *[!0-9]* | '') echo "tailscale-http-server: TSMON_SIDECAR_PORT takes a number" >&2; exit 1 ;; esac
    case $bind in
        *[!0-9a-fA-F.:]* | '') echo "tailscale-http-server: TSMON_SIDECAR_BIND takes an address" >&2; exit 1 ;;
        *:*) address="TCP6-LISTEN:$port,bind=[$bind],ipv6only=1" ;;
        *) address="TCP4-LISTEN:$port,bind=$bind" ;;
    esac
    case $0 in */*) self=$0 ;; *) self=$(command -v -- "$0") ;; esac
    # -T ends a connection on which nothing moves; max-children leaves the rest waiting in the backlog.
    exec socat -T 40 "$address,reuseaddr,fork,max-children=$children,backlog=128" \
        SYSTEM:"exec sh '$(printf %s "$self" | sed "s/[\\\\\"',:!]/\\\\&/g")' answer"
}

# json_text: standard input as the inside of a JSON string, at most 500 bytes of printable ASCII.
json_text() {
    tr '\n\t' '  ' | tr -cd '\040-\176' | cut -c1-500 | sed 's/[\\"]/\\&/g; s/ *$//'
}

# reply STATUS FILE: the answer, with its length; the body is left out for HEAD.
reply() {
    length=$(wc -c <"$2" | tr -d ' ')
    printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %s\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%s\r\n' \
        "$1" "${content_type:-application/json}" "$length" "${extra_header:-}"
    [ "${method:-GET}" = HEAD ] || cat "$2"
    exit 0
}

# fail STATUS CODE WORDS
fail() {
    content_type=application/json
    words=$(printf %s "$3" | json_text)
    printf '{"error": {"code": "%s", "message": "%s"}}\n' "$2" "$words" >"$work/error"
    reply "$1" "$work/error"
}

# cli SECONDS ARGUMENT...: run the CLI, bounded; output in $work/out and $work/err.
cli() {
    seconds=$1
    shift
    if [ -n "${TS_SOCKET:-}" ]; then
        timeout "$seconds" "$tailscale" --socket="$TS_SOCKET" "$@" >"$work/out" 2>"$work/err" </dev/null
    else
        timeout "$seconds" "$tailscale" "$@" >"$work/out" 2>"$work/err" </dev/null
    fi
}

# cli_failed CODE: the answer to a CLI that failed: 504 when it hung, 502 with its words else.
cli_failed() {
    case $1 in
        124 | 137 | 143) fail "504 Gateway Timeout" cli_timeout "the tailscale command hung" ;;
        126 | 127) fail "502 Bad Gateway" cli_missing "the tailscale command cannot be run" ;;
    esac
    fail "502 Bad Gateway" cli_failed "$(head -c 1000 "$work/err")"
}

# is_address TEXT: 0 for an IPv4 or IPv6 address, by its characters and by its form.
is_address() {
    [ "${#1}" -le 45 ] || return 1
    case $1 in
        '' | *[!0-9a-fA-F.:]*) return 1 ;;
        *:*) printf %s "$1" | is_ipv6 ;;
        *) printf %s "$1" | is_ipv4 ;;
    esac
}

is_ipv4() {
    awk -F. '{ ok = NF == 4; for (i = 1; i <= NF; i++) if ($i !~ /^[0-9]+$/ || length($i) > 3 || $i > 255) ok = 0 } END { exit !ok }'
}

is_ipv6() {
    awk '{
        ok = $0 !~ /:::/ && $0 !~ /::.*::/ && $0 !~ /^:[^:]/ && $0 !~ /[^:]:$/ && $0 !~ /\./
        n = split($0, part, ":"); filled = 0
        for (i = 1; i <= n; i++) { if (length(part[i]) > 4) ok = 0; if (part[i] != "") filled++ }
        if ($0 ~ /::/) { if (filled > 7) ok = 0 } else if (filled != 8) ok = 0
    } END { exit !(ok && NR) }'
}

# is_known_host TEXT: loopback names, addresses and the configured names, with or without a port.
is_known_host() {
    host=$1
    case $host in
        '['*']' | '['*']:'*) host=${host#\[}; host=${host%%\]*} ;;
        *:*:*) return 1 ;;
        *:*) host=${host%:*} ;;
    esac
    host=$(printf %s "$host" | tr '[:upper:]' '[:lower:]')
    case $host in localhost | localhost.) return 0 ;; esac
    is_address "$host" && return 0
    for name in ${TSMON_SIDECAR_HOSTS:-}; do
        [ "$host" = "$(printf %s "$name" | tr '[:upper:]' '[:lower:]')" ] && return 0
    done
    return 1
}

# read_request: request line and headers, at most 16 KiB; the shell reads byte for byte, so that nothing waits
# for a body. Run in a process of its own that can be ended after $request_seconds.
read_request() {
    size=0
    while IFS= read -r line; do
        printf '%s\n' "$line"
        size=$((size + ${#line} + 1))
        case $line in '' | "$cr") exit 0 ;; esac
        [ "$size" -le 16384 ] || exit 3
    done
    exit 4
}

answer() {
    work=$(mktemp -d) || exit 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT PIPE TERM
    timeout "$request_seconds" sh "$0" read | tr -d '\000' >"$work/request"
    method=GET
    [ "$(wc -c <"$work/request")" -le 16384 ] || fail "431 Request Header Fields Too Large" too_large "the request is too large"
    tail -n 1 "$work/request" | grep -q "^$cr\{0,1\}\$" || fail "408 Request Timeout" timeout "no complete request came in time"
    line=$(head -n 1 "$work/request" | tr -d '\r')
    case $line in
        *' '*' HTTP/1.'[01]) ;;
        *) fail "400 Bad Request" bad_request "this is no HTTP request" ;;
    esac
    method=${line%% *}
    path=${line#* }
    path=${path% HTTP/1.*}
    case $method in
        GET | HEAD) ;;
        *)
            extra_header=$(printf 'Allow: GET, HEAD\r\n.')
            extra_header=${extra_header%.}
            fail "405 Method Not Allowed" method_not_allowed "only GET and HEAD are answered"
            ;;
    esac
    header() { sed -n '2,$p' "$work/request" | tr -d '\r' | grep -i "^$1:" | head -n 1 | sed 's/^[^:]*:[[:space:]]*//; s/[[:space:]]*$//'; }
    sed -n '2,$p' "$work/request" | grep -qi '^origin:' && fail "403 Forbidden" forbidden "requests of web pages are not answered"
    host=$(header host)
    [ -n "$host" ] && ! is_known_host "$host" && fail "403 Forbidden" forbidden "this Host is not one of the sidecar's names (TSMON_SIDECAR_HOSTS)"
    case $path in
        /status) status ;;
        /healthz) healthz ;;
        /whois/*) whois "${path#/whois/}" ;;
        /ping/*) ping "${path#/ping/}" ;;
        *) fail "404 Not Found" not_found "there is nothing at this path" ;;
    esac
}

status() {
    cli "$cli_seconds" status --json || cli_failed $?
    reply "200 OK" "$work/out"
}

healthz() {
    cli "$cli_seconds" status --json --peers=false || cli_failed $?
    echo '{"ok": true}' >"$work/body"
    reply "200 OK" "$work/body"
}

whois() {
    ip=$1
    case $1 in
        '['*']:'*) ip=${1#\[}; ip=${ip%%\]*}; suffix=${1##*\]:} ;;
        *.*:*) ip=${1%:*}; suffix=${1##*:} ;;
        *) suffix=0 ;;
    esac
    is_address "$ip" || fail "400 Bad Request" bad_address "whois takes an IPv4 or IPv6 address, with or without a port"
    case $suffix in '' | *[!0-9]* | ??????*) fail "400 Bad Request" bad_address "the port is no number" ;; esac
    case $(header accept) in
        *text/plain*)
            content_type='text/plain; charset=utf-8'
            cli "$cli_seconds" whois "$1" || whois_failed $?
            ;;
        *) cli "$cli_seconds" whois --json "$1" || whois_failed $? ;;
    esac
    reply "200 OK" "$work/out"
}

whois_failed() {
    grep -qi 'peer not found\|no match' "$work/err" && fail "404 Not Found" not_found "nobody has this address"
    cli_failed "$1"
}

ping() {
    is_address "$1" || fail "400 Bad Request" bad_address "ping takes an IPv4 or IPv6 address"
    cli "$ping_seconds" debug localapi POST "/localapi/v0/ping?ip=$1&type=disco"
    code=$?
    case $code in
        0) ;;
        124 | 137 | 143) printf '{"IP": "%s", "Err": "timeout"}\n' "$1" >"$work/out" ;;
        *) cli_failed "$code" ;;
    esac
    reply "200 OK" "$work/out"
}

case ${1:-listen} in
    listen) listen ;;
    answer) answer ;;
    read) read_request ;;
    *) echo "usage: tailscale-http-server.sh [listen|answer]" >&2; exit 2 ;;
esac
