# One image for the code server, the web server and the daemon: the command decides.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS dependencies
RUN python -m venv --without-pip /opt/venv
WORKDIR /src
COPY requirements.lock ./
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes \
        -r requirements.lock

FROM dependencies AS application
COPY pyproject.toml README.md LICENSE ./
COPY imgdl_pipeline ./imgdl_pipeline
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-build-isolation \
        --prefix /out/venv .
COPY dagster.example.yaml deploy/postgres.yaml ./
# Two Dagster homes: one with SQLite, for a single container, and one with PostgreSQL, for compose.yaml.
RUN mkdir -p /out/dagster/dagster_home /out/dagster/postgres/storage /out/work \
    && cp dagster.example.yaml /out/dagster/dagster_home/dagster.yaml \
    && cat dagster.example.yaml postgres.yaml > /out/dagster/postgres/dagster.yaml

FROM python:${PYTHON_VERSION}-slim
# Image decoders are confined to a few system calls, but only in processes that are not root's.
RUN groupadd --gid 10001 imgdl && useradd --uid 10001 --gid imgdl --no-create-home --home-dir /srv/imgdl imgdl
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /out/venv /opt/venv
COPY --from=application --chown=10001:10001 /out/dagster /opt/dagster
COPY --from=application --chown=10001:10001 /out/work /srv/imgdl
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/opt/dagster/dagster_home
# A relative `store`, such as the default `data`, is a folder in here.
WORKDIR /srv/imgdl
USER 10001:10001
# 3000 is the web UI, 4000 the code server. Health checks depend on the command, so compose.yaml has them.
EXPOSE 3000 4000
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", "--module-name", "imgdl_pipeline.definitions"]
