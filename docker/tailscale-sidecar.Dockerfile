# The sidecar: Tailscale's own image, socat, and two scripts.
# docker build -f docker/tailscale-sidecar.Dockerfile -t tsmon-sidecar .
ARG TAILSCALE=docker.io/tailscale/tailscale:v1.102.3
# hadolint ignore=DL3006 # the pinned version is in the argument
FROM ${TAILSCALE}

# hadolint ignore=DL3018 # Alpine keeps no old versions: a pinned one would soon not install
RUN apk add --no-cache socat

COPY --chmod=0755 docker/tailscale-http-server.sh docker/tailscale-start.sh /usr/local/bin/

# 40 s: containerboot starts tailscaled and logs in first. That a node is logged out is no reason to restart.
HEALTHCHECK --interval=30s --timeout=12s --start-period=40s \
    CMD ["sh", "-c", "wget -q -O /dev/null http://${TSMON_SIDECAR_BIND:-127.0.0.1}:${TSMON_SIDECAR_PORT:-8765}/healthz"]

ENTRYPOINT ["/usr/local/bin/tailscale-start.sh"]
