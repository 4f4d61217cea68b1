# tsmon. docker build -t tsmon .
ARG PYTHON=docker.io/library/python:3.13-slim
# hadolint ignore=DL3006 # the version is in the argument
FROM ${PYTHON} AS build

# The same input gives the same files: hashed locks for what is installed and for what builds, no time stamps.
ENV SOURCE_DATE_EPOCH=1767225600 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements-build.lock \
    && python -m venv --without-pip /opt/tsmon \
    && /opt/build/bin/pip --python /opt/tsmon/bin/python install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY tsmon tsmon
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/tsmon/bin/python install --no-deps dist/*.whl \
    && /opt/tsmon/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tsmon/lib

# hadolint ignore=DL3006
FROM ${PYTHON}

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tsmon" \
    org.opencontainers.image.description="Watches a Tailscale tailnet and never calls 'I cannot see' an outage" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/tsmon
COPY --from=build /opt/tsmon /opt/tsmon
# Their modes are those in the repository: the builder without BuildKit knows no --chmod.
COPY docker/tsmon-entrypoint.sh docker/tsmon-healthcheck.py /usr/local/bin/

ENV PATH=/opt/tsmon/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TSMON_STATE_DIR=/var/lib/tsmon
# A number, so that a runtime can see that it is not root; it needs no entry in /etc/passwd.
USER 10001:10001
VOLUME /var/lib/tsmon
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "/usr/local/bin/tsmon-healthcheck.py"]
ENTRYPOINT ["tsmon-entrypoint.sh"]
CMD ["run"]
