# The stages that neither train nor ask a model. Of PyTorch its CPU build, with which preflight builds a model without
# its weights, and no engine.
#
#   docker build -f images/light.Dockerfile -t self-rewarding-light .
ARG BASE=python:3.12.14-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579

FROM ${BASE} AS build
# A mirror of the package index, where there is one.
ARG PIP_INDEX_URL
# Where PyTorch publishes its CPU builds; name a mirror where there is one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY images/requirements/build.txt images/requirements/light.txt images/requirements/
# torch first and from PyTorch's own CPU index: the build of the default index brings gigabytes of CUDA.
RUN python -m venv /opt/srlm \
 && /opt/srlm/bin/pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" \
    "torch==2.13.0+cpu" \
 && /opt/srlm/bin/pip install --no-cache-dir --no-deps --require-hashes -r images/requirements/light.txt \
 && python -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/build -r images/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY stages stages
RUN PYTHONPATH=/opt/build python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/srlm/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
 && /opt/srlm/bin/pip uninstall --yes pip
COPY images/check_env.py images/check_env.py
RUN PYTHONPATH=/opt/build /opt/srlm/bin/python images/check_env.py images/requirements/light.txt light

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Self-Rewarding stages, light" \
      org.opencontainers.image.description="The stages of a SelfRewardingRun that neither train nor ask a model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing can be installed into a running container.
RUN python -m pip uninstall --yes pip && rm -rf /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/srlm /opt/srlm
# Caches go to /tmp, so the root file system can be read-only. torch asks for the name of the user, and
# 65532 has none in /etc/passwd: USER and LOGNAME answer.
ENV PATH=/opt/srlm/bin:${PATH} \
    HOME=/tmp \
    USER=srlm \
    LOGNAME=srlm \
    HF_HOME=/tmp/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python", "-m", "srlm_stages", "--help"]
