# sft and train on GPUs: PyTorch as its makers publish it, TRL and the stages beside it.
#
# The tag is exact, but its digest has to be given, so that a build never depends on a tag that moved:
#
#   digest=$(docker buildx imagetools inspect pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime --format '{{.Manifest.Digest}}')
#   docker build -f images/train.Dockerfile --build-arg BASE_DIGEST=$digest -t self-rewarding-train .
ARG BASE_DIGEST
ARG BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime@${BASE_DIGEST}

FROM ${BASE} AS build
# A mirror of the package index, where there is one.
ARG PIP_INDEX_URL
WORKDIR /src
COPY images/requirements/build.txt images/requirements/train.txt images/requirements/
# An environment that sees the packages of the base and has its own beside them: where both have one, its own counts,
# as those were tested together. check_env.py then says whether all of them fit what the base brought.
RUN python3 -m venv --without-pip --system-site-packages /opt/srlm \
 && python3 -m pip --python /opt/srlm/bin/python install --no-cache-dir --no-deps --require-hashes \
    -r images/requirements/train.txt \
 && python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/build -r images/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY stages stages
RUN PYTHONPATH=/opt/build python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m pip --python /opt/srlm/bin/python install --no-cache-dir --no-deps /dist/*.whl
COPY images/check_env.py images/check_env.py
RUN PYTHONPATH=/opt/build /opt/srlm/bin/python images/check_env.py images/requirements/train.txt train

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE_DIGEST
LABEL org.opencontainers.image.title="Self-Rewarding train" \
      org.opencontainers.image.description="Supervised fine-tuning and DPO with TRL under torchrun on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"
COPY --from=build /opt/srlm /opt/srlm
# Caches go to /tmp, so the root file system can be read-only. torch asks for the name of the user, and
# 65532 has none in /etc/passwd: USER and LOGNAME answer.
ENV PATH=/opt/srlm/bin:${PATH} \
    HOME=/tmp \
    USER=srlm \
    LOGNAME=srlm \
    HF_HOME=/tmp/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor \
    TRITON_CACHE_DIR=/tmp/cache/triton \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["python", "-m", "srlm_stages", "--help"]
