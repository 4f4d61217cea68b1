# The sidecar: Tailscale's own image, socat, and three scripts.
# docker build -f docker/tailscale-sidecar.Dockerfile -t tsmon-sidecar .
ARG TAILSCALE=docker.io/tailscale/tailscale:v1.102.3
# hadolint ignore=DL3006 # the pinned version is in the argument
FROM ${TAILSCALE}

# hadolint ignore=DL3018 # Alpine keeps no old versions: a pinned one would soon not install
RUN apk add --no-cache socat

# Their modes are those in the repository: the builder without BuildKit knows no --chmod.
COPY docker/tailscale-http-server.sh docker/tailscale-start.sh docker/tailscale-healthcheck.sh /usr/local/bin/

# 40 s: containerboot starts tailscaled and logs in first.
HEALTHCHECK --interval=30s --timeout=12s --start-period=40s CMD ["tailscale-healthcheck.sh"]

ENTRYPOINT ["/usr/local/bin/tailscale-start.sh"]
