# sft and train on GPUs: PyTorch as its makers publish it, TRL and the stages beside it.
#
# The tag is exact, but its digest has to be given, so that a build never depends on a tag that moved:
#
#   digest=$(docker buildx imagetools inspect pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime --format '{{.Manifest.Digest}}')
#   docker build -f images/train.Dockerfile --build-arg BASE_DIGEST=$digest -t self-rewarding-train .
ARG BASE_DIGEST
ARG BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime@${BASE_DIGEST}

FROM ${BASE} AS build
WORKDIR /src
COPY images/requirements/build.txt images/requirements/train.txt images/requirements/
# Beside the packages of the base image, not among them: those are the versions the base was tested with.
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/srlm -r images/requirements/train.txt \
 && python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/build -r images/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY stages stages
RUN PYTHONPATH=/opt/build python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m pip install --no-cache-dir --no-deps --target /opt/srlm /dist/*.whl

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
# Jobs run `python`; some CUDA images only have python3.
RUN command -v python || ln -s "$(command -v python3)" /usr/local/bin/python
# Caches go to /tmp, so the root file system can be read-only. torch asks for the name of the user, and
# 65532 has none in /etc/passwd: USER and LOGNAME answer.
ENV PYTHONPATH=/opt/srlm \
    PATH=${PATH}:/opt/srlm/bin \
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
