# prompts, generate and judge on GPUs: vLLM as its makers publish it, and the stages beside it.
#
# The tag is exact, but its digest has to be given, so that a build never depends on a tag that moved:
#
#   digest=$(docker buildx imagetools inspect vllm/vllm-openai:v0.32.0 --format '{{.Manifest.Digest}}')
#   docker build -f images/inference.Dockerfile --build-arg BASE_DIGEST=$digest -t self-rewarding-inference .
ARG BASE_DIGEST
ARG BASE=vllm/vllm-openai:v0.32.0@${BASE_DIGEST}

FROM ${BASE} AS build
# A mirror of the package index, where there is one.
ARG PIP_INDEX_URL
WORKDIR /src
COPY images/requirements/build.txt images/requirements/inference.txt images/requirements/
# An environment that sees the packages of the base and has its own beside them: where both have one, its own counts,
# as those were tested together. check_env.py then says whether all of them fit what the base brought.
RUN python3 -m venv --without-pip --system-site-packages /opt/srlm \
 && python3 -m pip --python /opt/srlm/bin/python install --no-cache-dir --no-deps --require-hashes \
    -r images/requirements/inference.txt \
 && python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/build -r images/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY stages stages
RUN PYTHONPATH=/opt/build python3 -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m pip --python /opt/srlm/bin/python install --no-cache-dir --no-deps /dist/*.whl
COPY images/check_env.py images/check_env.py
RUN PYTHONPATH=/opt/build /opt/srlm/bin/python images/check_env.py images/requirements/inference.txt inference

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
    VLLM_NO_USAGE_STATS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["python", "-m", "srlm_stages", "--help"]
