# The local run as an image, which is also what Kubeflow runs the steps in:
#
#   docker build -t tfdpgen .
#   mkdir -p output ~/.local/share/tfdpgen
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/output:/data/output" \
#       -v ~/.local/share/tfdpgen:/data/tfdpgen tfdpgen --epsilon=1
#
# The second volume is the ledger of what was spent: without it, every container starts with a new one.
#
# No layer needs a compiler, and the dependencies' layer changes only with requirements.lock.

FROM python:3.13-slim AS environment
WORKDIR /build
COPY requirements.lock ./
COPY scripts/bootstrap.py scripts/
RUN PIP_NO_CACHE_DIR=1 python scripts/bootstrap.py --run-time /opt/venv

FROM python:3.13-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp XDG_DATA_HOME=/data
RUN useradd --no-create-home --uid 1000 tfdpgen && install -d -o tfdpgen -m 0777 /data
COPY --from=environment /opt/venv /opt/venv
WORKDIR /app
COPY setup.py pyproject.toml README.md LICENSE ./
COPY tfdpgen tfdpgen
COPY components components
COPY pipelines pipelines
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
WORKDIR /data
USER tfdpgen
ENTRYPOINT ["python", "/app/pipelines/local_run.py"]
