#!/bin/sh
# Entry point of tsmon's image: says what a container without settings cannot know by itself.
set -eu
if [ "${1:-}" = run ] && [ -z "${TSMON_LISTEN:-}${TSMON_CONFIG:-}" ] && [ ! -e /etc/tsmon/tsmon.toml ]; then
    case " $* " in *" --listen"*) ;; *)
        echo "tsmon: listening on loopback inside this container only; to be reached from outside set" \
            "TSMON_LISTEN=0.0.0.0:8000 and TSMON_AUTH_MODE (see docs/deployment.md)" >&2
        ;;
    esac
fi
exec tsmon "$@"
