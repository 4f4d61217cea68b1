# tsmon. docker build -t tsmon . && docker run --rm -e TSMON_SOURCE=http://HOST:8765 tsmon
FROM docker.io/library/python:3.13-slim AS build

WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
# Hashes in the lock: the same packages every time.
RUN python -m venv /opt/tsmon \
    && /opt/tsmon/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY tsmon tsmon
RUN /opt/tsmon/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/tsmon/bin/python -m compileall -q /opt/tsmon/lib \
    && /opt/tsmon/bin/pip uninstall --quiet --yes pip

FROM docker.io/library/python:3.13-slim

LABEL org.opencontainers.image.title="tsmon" \
    org.opencontainers.image.description="Watches a Tailscale tailnet and never calls 'I cannot see' an outage" \
    org.opencontainers.image.licenses="MIT"

RUN groupadd --gid 10001 tsmon && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin tsmon \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/tsmon
COPY --from=build /opt/tsmon /opt/tsmon

ENV PATH=/opt/tsmon/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TSMON_STATE_DIR=/var/lib/tsmon
USER 10001:10001
VOLUME /var/lib/tsmon
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('TSMON_LISTEN', ':8000').rpartition(':')[2] + '/healthz', timeout=4)"]
ENTRYPOINT ["tsmon"]
CMD ["run"]
