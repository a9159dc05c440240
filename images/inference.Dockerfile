# prompts, generate and judge on GPUs: vLLM as its makers publish it, and the stages beside it.
#
# The tag is exact, but its digest has to be given, so that a build never depends on a tag that moved:
#
#   digest=$(docker buildx imagetools inspect vllm/vllm-openai:v0.32.0 --format '{{.Manifest.Digest}}')
#   docker build -f images/inference.Dockerfile --build-arg BASE_DIGEST=$digest -t self-rewarding-inference .
ARG BASE_DIGEST
ARG BASE=vllm/vllm-openai:v0.32.0@${BASE_DIGEST}

FROM ${BASE} AS build
WORKDIR /src
COPY images/requirements/build.txt images/requirements/inference.txt images/requirements/
# Beside the packages of the base image, not among them: those are the versions the base was tested with.
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/srlm -r images/requirements/inference.txt \
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
LABEL org.opencontainers.image.title="Self-Rewarding inference" \
      org.opencontainers.image.description="Generation and judging with vLLM on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="vllm/vllm-openai:v0.32.0" \
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
    VLLM_CACHE_ROOT=/tmp/cache/vllm \
    VLLM_NO_USAGE_STATS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["python", "-m", "srlm_stages", "--help"]
