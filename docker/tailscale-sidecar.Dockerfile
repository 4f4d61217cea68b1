# The sidecar: Tailscale's own image, socat, and the two scripts.
# Build from the top of the repository: docker build -f docker/tailscale-sidecar.Dockerfile .
FROM docker.io/tailscale/tailscale:v1.102.3

RUN apk add --no-cache socat

COPY --chmod=0755 docker/tailscale-http-server.sh docker/tailscale-start.sh /usr/local/bin/

HEALTHCHECK --interval=30s --timeout=20s --start-period=60s \
    CMD wget -q -O /dev/null "http://127.0.0.1:${TSMON_SIDECAR_PORT:-8765}/healthz" || exit 1

ENTRYPOINT ["/usr/local/bin/tailscale-start.sh"]
