#!/bin/sh
# A tailscale command that a test scripts: what it says to `status`, `whois` or `debug` (ping) lies in files of
# $TSMON_TEST_CLI: COMMAND.out, COMMAND.err, COMMAND.code, COMMAND.hang (seconds), COMMAND.stubborn (ignores SIGTERM).
# Every call is a line of the file `calls`, each argument in <>.
set -u
# One write, since many of it run at once.
call=$(printf '<%s>' "$@")
printf '%s\n' "$call" >>"$TSMON_TEST_CLI/calls"
case $1 in --socket=*) shift ;; esac
cd "$TSMON_TEST_CLI" || exit 99
[ ! -e "$1.err" ] || cat "$1.err" >&2
[ ! -e "$1.stubborn" ] || trap '' TERM
# exec, so that nothing is left behind when the handler ends it (the stubborn one ends by itself).
[ ! -e "$1.hang" ] || [ "$*" = "status --json --peers=false" ] || exec sleep "$(cat "$1.hang")"
[ ! -e "$1.out" ] || cat "$1.out"
[ ! -e "$1.code" ] || exit "$(cat "$1.code")"
