# syntax=docker/dockerfile:1

# Signalbox and the Python that its models run in.
#
#   docker build --target python    -t signalbox-python .   MLflow and scikit-learn alone: the tracking server, the models
#   docker build --target signalbox -t signalbox .         the same, and Signalbox itself

# The program. The image brings a C toolchain and perl, which is all that the vendored librdkafka and OpenSSL need.
# Registry and target directory are caches: a change of the source compiles this crate alone.
FROM rust:1.95-bookworm AS builder
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin signalbox \
    && install -D target/release/signalbox /out/signalbox

# The interpreter that the hosts of models are forked from. It must have MLflow and every library that the models were
# logged with; models with other needs get another image, or a route of their own `python`.
FROM python:3.11-slim-bookworm AS python
RUN useradd --create-home --uid 10001 signalbox \
    && install -d -o signalbox -g signalbox /var/lib/mlflow
COPY src/cli/quickstart/requirements.txt /opt/requirements.txt
RUN python -m venv /opt/models \
    && /opt/models/bin/pip install --no-cache-dir --disable-pip-version-check --requirement /opt/requirements.txt
# The tracking server is `mlflow` on PATH. MLflow looks for git only to note a commit, and warns without this.
ENV PATH=/opt/models/bin:$PATH \
    GIT_PYTHON_REFRESH=quiet \
    PYTHONUNBUFFERED=1
USER signalbox
WORKDIR /home/signalbox

FROM python AS signalbox
COPY --from=builder /out/signalbox /usr/local/bin/signalbox
# For `models.cache.directory`. A volume that is mounted there for the first time has this owner too.
USER root
RUN install -d -o signalbox -g signalbox /var/cache/signalbox
USER signalbox
EXPOSE 5000
ENV SIGNALBOX_READY_URL=http://127.0.0.1:5000/ready
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(os.environ['SIGNALBOX_READY_URL'], timeout=2)"]
ENTRYPOINT ["signalbox"]
CMD ["start", "--config", "/etc/signalbox/config.yaml"]
