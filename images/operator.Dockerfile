# The operator: Kopf, the Kubernetes client and the srlm command. No machine learning, no S3, no compiler.
#
#   docker build -f images/operator.Dockerfile -t self-rewarding-operator .
ARG BASE=python:3.12.14-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579

FROM ${BASE} AS build
# A mirror of the package index, where there is one.
ARG PIP_INDEX_URL
WORKDIR /src
COPY images/requirements/build.txt images/requirements/operator.txt images/requirements/
# Of the Kubernetes client nobody imports the classes of the API's groups, their asyncio twins and all but three of the
# models: 70 MB that nobody reads.
RUN python -m venv /opt/srlm \
 && /opt/srlm/bin/pip install --no-cache-dir --no-deps --require-hashes -r images/requirements/operator.txt \
 && cd /opt/srlm/lib/python3.*/site-packages \
 && rm -r kubernetes/aio kubernetes/client/api \
 && find kubernetes/client/models -name 'v[0-9]*' ! -name 'v1_managed_fields_entry.*' ! -name 'v1_object_meta.*' \
    ! -name 'v1_owner_reference.*' -delete \
 && cd /src \
 && python -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/build -r images/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY stages stages
RUN PYTHONPATH=/opt/build python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/srlm/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
 && /opt/srlm/bin/pip uninstall --yes pip
COPY images/check_env.py images/check_env.py
RUN PYTHONPATH=/opt/build /opt/srlm/bin/python images/check_env.py images/requirements/operator.txt operator
# What was left out is not missed.
RUN /opt/srlm/bin/srlm operator --help > /dev/null && /opt/srlm/bin/srlm ui --help > /dev/null

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Self-Rewarding Operator" \
      org.opencontainers.image.description="Turns SelfRewardingRun resources into Jobs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing can be installed into a running container.
RUN python -m pip uninstall --yes pip && rm -rf /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/srlm /opt/srlm
# Nothing is written outside /tmp, so the root file system can be read-only.
ENV PATH=/opt/srlm/bin:${PATH} \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["srlm"]
CMD ["operator"]
