#!/bin/sh
# The sidecar: HTTP in front of the Tailscale CLI. socat listens and starts this script for each connection.
#
#   tailscale-http-server.sh            listen
#   tailscale-http-server.sh answer     answer the one request on standard input
#
# Read-only: status, whois and ping are all that can be reached. POSIX sh (busybox ash, dash).
#
#   TSMON_SIDECAR_PORT   8765
#   TSMON_SIDECAR_BIND   127.0.0.1
#   TSMON_SIDECAR_CLIENTS who may connect, as 172.31.87.2/31; everybody who can, when empty
#   TSMON_SIDECAR_HOSTS  names allowed in the Host header beside loopback and addresses, parted by spaces or commas
#   TAILSCALE_BIN        tailscale
#   TS_SOCKET            tailscaled's socket, where it is not where the CLI looks
set -uf
umask 077
LC_ALL=C
export LC_ALL

children=64          # connections answered at a time; the others wait in the backlog
slots=16             # of them at most so many ask for whois, and as many ping: 32 are left for /status
silent_seconds=1.5   # for the first bytes of one (busybox: 1): 190 silent clients keep others waiting three times that long
request_seconds=3    # for the whole head of a request
request_bytes=16384
cli_seconds=9        # under tsmon's source_timeout (10 s), so that tsmon hears "it hung" and not silence
ping_seconds=5
write_seconds=10     # for a client to take the answer
nl='
'
cr=$(printf '\r')

die() {
    printf 'tailscale-http-server: %s\n' "$1" >&2
    exit 1
}

listen() {
    port=${TSMON_SIDECAR_PORT:-8765}
    bind=${TSMON_SIDECAR_BIND:-127.0.0.1}
    clients=${TSMON_SIDECAR_CLIENTS:-}
    for tool in socat timeout; do
        command -v "$tool" >/dev/null || die "$tool is missing: install it"
    done
    is_port "$port" || die "TSMON_SIDECAR_PORT takes a number from 1 to 65535"
    is_address "$bind" || die "TSMON_SIDECAR_BIND takes an IPv4 or IPv6 address"
    case $bind in
        *:*) address="TCP6-LISTEN:$port,bind=[$bind]" ;;
        *) address="TCP4-LISTEN:$port,bind=$bind" ;;
    esac
    if [ -n "$clients" ]; then
        case $bind in *:*) die "TSMON_SIDECAR_CLIENTS needs an IPv4 address in TSMON_SIDECAR_BIND" ;; esac
        is_network "$clients" || die "TSMON_SIDECAR_CLIENTS takes an IPv4 network as 172.31.87.2/31"
        address="$address,range=$clients"
    fi
    # By the environment, since a path within socat's address would need its quoting.
    TSMON_SIDECAR_SCRIPT=$0
    TSMON_SIDECAR_SLOTS=$(mktemp -d) || die "no directory can be made in ${TMPDIR:-/tmp}: it must be writable"
    export TSMON_SIDECAR_SCRIPT TSMON_SIDECAR_SLOTS
    # nofork gives the handler the socket itself: a process of socat between would cut off answers to clients
    # that shut their sending side, or stay as long as a client does.
    # shellcheck disable=SC2016 # socat's shell expands it
    exec socat "$address,reuseaddr,fork,max-children=$children,backlog=128" \
        'SYSTEM:exec sh \"$TSMON_SIDECAR_SCRIPT\" answer,nofork'
}

# -- what is an address ------------------------------------------------------------------------------------

# is_port TEXT: 1 to 65535.
is_port() {
    case $1 in '' | 0* | *[!0-9]* | ??????*) return 1 ;; esac
    [ "$1" -le 65535 ]
}

# is_address TEXT: an IPv4 or IPv6 address (RFC 4291, 2.2), without zone; by characters first, then by form.
is_address() {
    [ "${#1}" -le 45 ] || return 1
    case $1 in
        '' | *[!0-9a-fA-F.:]*) return 1 ;;
        *:*) is_ipv6 "$1" ;;
        *) is_ipv4 "$1" ;;
    esac
}

is_ipv4() {
    case $1 in *[!0-9.]* | *.) return 1 ;; esac
    old_ifs=$IFS
    IFS=.
    # shellcheck disable=SC2086 # splitting is meant
    set -- $1
    IFS=$old_ifs
    [ $# -eq 4 ] || return 1
    for part; do
        case $part in '' | 0?* | ????*) return 1 ;; esac
        [ "$part" -le 255 ] || return 1
    done
}

# is_network TEXT: an IPv4 address, a slash and 0 to 32.
is_network() {
    is_ipv4 "${1%/*}" || return 1
    case ${1##*/} in [0-9] | [12][0-9] | 3[0-2]) ;; *) return 1 ;; esac
}

is_ipv6() {
    case $1 in
        *:::* | *::*::*) return 1 ;;
        :[!:]* | *[!:]:) return 1 ;;
        *::*) gap=1 ;;
        *) gap=0 ;;
    esac
    groups=0
    case $1 in
        *.*:*) return 1 ;;
        *.*)
            is_ipv4 "${1##*:}" || return 1
            groups=1 # it counts once more below
            ;;
    esac
    old_ifs=$IFS
    IFS=:
    # shellcheck disable=SC2086 # splitting is meant
    set -- $1
    IFS=$old_ifs
    for part; do
        case $part in
            '') continue ;;
            *.*) ;;
            ?????*) return 1 ;;
        esac
        groups=$((groups + 1))
    done
    if [ "$gap" = 1 ]; then [ "$groups" -le 7 ]; else [ "$groups" -eq 8 ]; fi
}

# -- answers -----------------------------------------------------------------------------------------------

# head_lines STATUS TYPE LENGTH
head_lines() {
    printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %s\r\n' "$1" "$2" "$3"
    printf 'Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n'
    case $1 in
        405*) printf 'Allow: GET, HEAD\r\n' ;;
        503*) printf 'Retry-After: 1\r\n' ;;
    esac
    printf '\r\n'
}

# fail STATUS CODE WORDS: WORDS hold neither '"' nor '\' nor anything but printable ASCII.
fail() {
    body="{\"error\": {\"code\": \"$2\", \"message\": \"$3\"}}"
    {
        head_lines "$1" application/json "${#body}"
        [ "$method" = HEAD ] || printf %s "$body"
    } 2>/dev/null
    # What a client still sends when the socket is closed costs it the answer (TCP reset): a little is read.
    case $method in
        GET | HEAD | NONE) ;;
        *) timeout 1 dd bs=4096 count=16 >/dev/null 2>&1 ;;
    esac
    exit 0
}

# reply TYPE FILE
reply() {
    length=$(wc -c <"$2")
    head_lines "200 OK" "$1" "$((length))" 2>/dev/null
    [ "$method" = HEAD ] || (exec 2>/dev/null; timeout "$write_seconds" cat "$2"; exit "$?")
    exit 0
}

# -- the request -------------------------------------------------------------------------------------------

# read_request: the head of the request in $request, bounded in size and time.
read_request() {
    request=
    end=
    left=$silent_seconds
    while :; do
        # Control characters become one that no request may hold (a shell's variable cannot hold NUL).
        chunk=$(
            exec 2>/dev/null
            timeout "$left" dd bs=4096 count=1 | tr '\000-\010\013\014\016-\037\177' '\001'
            echo .
        )
        chunk=${chunk%.}
        [ -n "$chunk" ] || fail "408 Request Timeout" timeout "no complete request came in time"
        request=$request$chunk
        case $request in *"$nl$nl"* | *"$nl$cr$nl"*) return ;; esac
        if [ "${#request}" -gt "$request_bytes" ]; then
            method=LONG
            fail "431 Request Header Fields Too Large" too_large "the request is too large"
        fi
        now=$(date +%s)
        [ -n "$end" ] || end=$((now + request_seconds))
        left=$((end - now))
        { [ "$left" -gt 0 ] && [ "$left" -le "$request_seconds" ]; } ||
            fail "408 Request Timeout" timeout "no complete request came in time"
    done
}

bad_request() {
    fail "400 Bad Request" bad_request "$1"
}

# parse_request: $request into $method, $path, $version, $host, $accept, $origin, $site, $mode.
parse_request() {
    number=0
    host=
    accept=
    origin=
    site=
    mode=
    while IFS= read -r line; do
        line=${line%"$cr"}
        case $line in *"$cr"* | *["$soh"]*) method=BAD; bad_request "the request holds control characters" ;; esac
        number=$((number + 1))
        if [ "$number" -eq 1 ]; then
            parse_request_line "$line"
        elif [ -z "$line" ]; then
            break
        else
            parse_header "$line"
        fi
    done <<END
$request
END
}

parse_request_line() {
    case $1 in
        [A-Z]*' '?*' HTTP/1.'[01]) ;;
        *) method=BAD; bad_request "this is no HTTP request" ;;
    esac
    method=${1%% *}
    path=${1#* }
    version=${path##* }
    path=${path% *}
}

parse_header() {
    case $1 in
        [!:\ \	]*:*) ;;
        *) bad_request "a header line is malformed" ;;
    esac
    name=${1%%:*}
    case $name in *[\ \	]*) bad_request "a header line is malformed" ;; esac
    value=${1#*:}
    case $name in
        [Oo][Rr][Ii][Gg][Ii][Nn]) origin=yes ;;
        [Aa][Cc][Cc][Ee][Pp][Tt]) accept=$value ;;
        [Ss][Ee][Cc]-[Ff][Ee][Tt][Cc][Hh]-[Ss][Ii][Tt][Ee]) site=$value ;;
        [Ss][Ee][Cc]-[Ff][Ee][Tt][Cc][Hh]-[Mm][Oo][Dd][Ee]) mode=$value ;;
        [Hh][Oo][Ss][Tt])
            [ -z "$host" ] || bad_request "there is more than one Host"
            host=${value# }
            case $host in
                *[A-Z\ \	]*) host=$(printf %s "$host" | tr -d ' \t' | tr '[:upper:]' '[:lower:]') ;;
            esac
            [ -n "$host" ] || bad_request "the Host is empty"
            ;;
    esac
}

# is_known_host TEXT (lower case): a loopback name, an address or a configured name, with a port or without.
is_known_host() {
    bare=$1
    case $bare in
        *']') ;;
        *:*) is_port "${bare##*:}" || return 1; bare=${bare%:*} ;;
    esac
    case $bare in '['*']') bare=${bare#\[}; bare=${bare%\]} ;; esac
    [ "$bare" != localhost ] || return 0
    is_address "$bare" && return 0
    known=$(printf %s "${TSMON_SIDECAR_HOSTS:-}" | tr ',[:upper:]' ' [:lower:]')
    for name in $known; do
        [ "$bare" != "$name" ] || return 0
    done
    return 1
}

# -- places ------------------------------------------------------------------------------------------------

# take_slot KIND: one of the places of whois or ping until this handler ends, else 503. By what the shell does
# itself, since refusing must be cheap: a file that only one can make, with the process that holds it.
take_slot() {
    [ -n "${TSMON_SIDECAR_SLOTS:-}" ] || return 0 # started by something else than the listener, which counts itself
    [ -d "$TSMON_SIDECAR_SLOTS" ] || mkdir "$TSMON_SIDECAR_SLOTS" 2>/dev/null # what cleans /tmp was here
    set -C
    number=1
    while [ "$number" -le "$slots" ]; do
        file=$TSMON_SIDECAR_SLOTS/$1.$number
        if { echo "$$" >"$file"; } 2>/dev/null; then
            slot=$file
            set +C
            return
        fi
        holder=
        { read -r holder <"$file"; } 2>/dev/null
        # One that was killed left its file: whoever comes next takes it.
        if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then rm -f "$file"; else number=$((number + 1)); fi
    done
    fail "503 Service Unavailable" busy "the sidecar answers $slots requests of this kind already"
}

# -- the command line --------------------------------------------------------------------------------------

# cli SECONDS ARGUMENT...: run the CLI, bounded; its words in $work/out and $work/err, its exit code in $code.
cli() {
    seconds=$1
    shift
    [ -n "$work" ] || work=$(mktemp -d) || fail "502 Bad Gateway" no_space "the sidecar has no space for an answer"
    [ -z "${TS_SOCKET:-}" ] || set -- "--socket=$TS_SOCKET" "$@"
    (
        exec 2>/dev/null # the shell tells of each child that was ended; exit keeps a shell here to do so
        timeout -k 1 "$seconds" "${TAILSCALE_BIN:-tailscale}" "$@" >"$work/out" 2>"$work/err" </dev/null
        exit "$?"
    )
    code=$?
}

# cli_hung: the last call was ended for its time (124 by GNU's timeout, 143 by busybox's, 137 by the second signal).
cli_hung() {
    case $code in 124 | 137 | 143) return 0 ;; esac
    return 1
}

# cli_failed: the answer to a call that failed.
cli_failed() {
    cli_hung && fail "504 Gateway Timeout" cli_timeout "the tailscale command hung: tailscaled does not answer it"
    case $code in
        126 | 127) fail "502 Bad Gateway" cli_missing "the tailscale command cannot be run (TAILSCALE_BIN)" ;;
    esac
    words=$(cli_words err)
    [ -n "$words" ] || words=$(cli_words out)
    fail "502 Bad Gateway" cli_failed "${words:-the tailscale command failed with exit code $code}"
}

# cli_words FILE: what the CLI said, as the inside of a JSON string, without its chatter.
cli_words() {
    sed '/^# /d; /^Warning: client version/d' "$work/$1" | head -c 2000 | tr '\n\t' '  ' | tr -cd '\040-\176' |
        cut -c1-500 | sed "s/[\\\\]/\//g; s/\"/'/g; s/ *\$//"
}

# reply_json: what the CLI printed, if it worked and printed JSON.
reply_json() {
    [ "$code" -eq 0 ] || cli_failed
    [ "$(head -c 1 "$work/out")" = '{' ] ||
        fail "502 Bad Gateway" cli_no_json "the tailscale command printed no JSON: $(cli_words out)"
    reply application/json "$work/out"
}

# -- the routes --------------------------------------------------------------------------------------------

status() {
    cli "$cli_seconds" status --json
    reply_json
}

healthz() {
    cli "$cli_seconds" status --json --peers=false
    [ "$code" -eq 0 ] || cli_failed
    printf '{"ok": true}\n' >"$work/out"
    reply application/json "$work/out"
}

# whois ADDRESS or ADDRESS:PORT, [ADDRESS]:PORT
whois() {
    ip=$1
    asked_port=1
    case $1 in
        '['*']:'*)
            ip=${1#\[}
            asked_port=${ip#*\]:}
            ip=${ip%%\]*}
            [ "$1" = "[$ip]:$asked_port" ] || ip=
            ;;
        *:*:*) ;;
        *:*)
            ip=${1%:*}
            asked_port=${1##*:}
            ;;
    esac
    { is_address "$ip" && is_port "$asked_port"; } ||
        fail "400 Bad Request" bad_address "whois takes an IPv4 or IPv6 address, with a port or without"
    take_slot whois
    case $accept in
        *application/json*) plain= ;;
        *text/plain*) plain=yes ;;
        *) plain= ;;
    esac
    if [ -n "$plain" ]; then cli "$cli_seconds" whois "$1"; else cli "$cli_seconds" whois --json "$1"; fi
    if [ "$code" -eq 1 ] && grep -qi -e 'peer not found' -e 'no match for' "$work/err"; then
        fail "404 Not Found" not_found "nobody has this address"
    fi
    [ -n "$plain" ] && [ "$code" -eq 0 ] && reply 'text/plain; charset=utf-8' "$work/out"
    reply_json
}

# ping ADDRESS: through the LocalAPI, since the CLI's own ping has no JSON and calls a relayed answer a failure.
ping() {
    is_address "$1" || fail "400 Bad Request" bad_address "ping takes an IPv4 or IPv6 address"
    take_slot ping
    cli "$ping_seconds" debug localapi POST "/localapi/v0/ping?ip=$1&type=disco"
    if cli_hung; then
        # A node that does not answer and a tailscaled that does not look the same from here.
        cli 3 status --json --peers=false
        [ "$code" -eq 0 ] || cli_failed
        printf '{"IP": "%s", "Err": "timeout"}\n' "$1" >"$work/out"
    fi
    reply_json
}

# refuse_web_pages: what a page of another site asks is not answered; somebody who opens an address is.
refuse_web_pages() {
    case $site in *cross-site*)
        case $mode in *navigate*) ;; *) origin=yes ;; esac
        ;;
    esac
    [ -z "$origin" ] || fail "403 Forbidden" forbidden "requests of web pages are not answered"
}

answer() {
    soh=$(printf '\001')
    work=
    slot=
    method=NONE # while none was read
    trap '[ -z "$work$slot" ] || rm -rf ${work:+"$work"} ${slot:+"$slot"}' EXIT
    trap 'exit 1' HUP INT PIPE TERM
    read_request
    parse_request
    case $method in
        GET | HEAD) ;;
        *) fail "405 Method Not Allowed" method_not_allowed "only GET and HEAD are answered" ;;
    esac
    refuse_web_pages
    if [ -n "$host" ]; then
        is_known_host "$host" ||
            fail "403 Forbidden" forbidden "this Host is none of the sidecar's (TSMON_SIDECAR_HOSTS)"
    elif [ "$version" = HTTP/1.1 ]; then
        bad_request "there is no Host"
    fi
    case $path in
        /status) status ;;
        /healthz) healthz ;;
        /whois/*) whois "${path#/whois/}" ;;
        /ping/*) ping "${path#/ping/}" ;;
        *) fail "404 Not Found" not_found "there is nothing at this path" ;;
    esac
}

case ${1:-listen} in
    listen) listen ;;
    answer) answer ;;
    *) die "takes no argument (listen) or: answer" ;;
esac
