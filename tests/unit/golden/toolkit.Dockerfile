# hadolint global ignore=DL3006
# DL3006: `base` is a named build context that the engine pins by digest.
FROM base AS start
# DL3008: the base is pinned by digest, and its distribution keeps one version of each package.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log

FROM start AS venv
ARG SOURCE_DATE_EPOCH
RUN python3 -m venv --without-pip /opt/env \
 && mkdir -p /skeleton/opt \
 && cp -a /opt/env /skeleton/opt/ \
 && chown -R 1000:1000 /skeleton/opt/env \
 && find /skeleton -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM venv AS nvidia-cublas-cu12-6ad36dad7d89
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/nvidia-cublas-cu12-6ad36dad7d89.txt,target=/tmp/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=uv,target=/run/secrets/uv.toml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=300 \
    uv --config-file /run/secrets/uv.toml pip install --python /opt/env/bin/python \
        --prefix /out/opt/env --no-deps --require-hashes --only-binary :all: --link-mode copy \
        --requirements /tmp/requirements.txt \
 && rm -f /out/opt/env/.lock \
 && chown -R 1000:1000 /out/opt/env \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM venv AS cuda-0dcfcf790c81
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/cuda-0dcfcf790c81.txt,target=/tmp/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=uv,target=/run/secrets/uv.toml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=300 \
    uv --config-file /run/secrets/uv.toml pip install --python /opt/env/bin/python \
        --prefix /out/opt/env --no-deps --require-hashes --only-binary :all: --link-mode copy \
        --requirements /tmp/requirements.txt \
 && rm -f /out/opt/env/.lock \
 && chown -R 1000:1000 /out/opt/env \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM venv AS torch-abe03a2065aa
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/torch-abe03a2065aa.txt,target=/tmp/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=uv,target=/run/secrets/uv.toml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=300 \
    uv --config-file /run/secrets/uv.toml pip install --python /opt/env/bin/python \
        --prefix /out/opt/env --no-deps --require-hashes --only-binary :all: --link-mode copy \
        --requirements /tmp/requirements.txt \
 && rm -f /out/opt/env/.lock \
 && chown -R 1000:1000 /out/opt/env \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM venv AS rest-6a9a6f44a5f5
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/rest-6a9a6f44a5f5.txt,target=/tmp/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=uv,target=/run/secrets/uv.toml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=300 \
    uv --config-file /run/secrets/uv.toml pip install --python /opt/env/bin/python \
        --prefix /out/opt/env --no-deps --require-hashes --only-binary :all: --link-mode copy \
        --requirements /tmp/requirements.txt \
 && rm -f /out/opt/env/.lock \
 && chown -R 1000:1000 /out/opt/env \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM start AS settings
ARG SOURCE_DATE_EPOCH
COPY constraints.txt /out/opt/env/constraints.txt
RUN mkdir -p /out/home/user \
 && chown -R 1000:1000 /out/opt/env /out/home/user \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM start
COPY --link --from=venv /skeleton/ /
COPY --link --from=nvidia-cublas-cu12-6ad36dad7d89 /out/ /
COPY --link --from=cuda-0dcfcf790c81 /out/ /
COPY --link --from=torch-abe03a2065aa /out/ /
COPY --link --from=rest-6a9a6f44a5f5 /out/ /
COPY --link --from=settings /out/ /
ENV PATH="/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV VIRTUAL_ENV="/opt/env"
ENV PIP_CONSTRAINT="/opt/env/constraints.txt"
ENV UV_CONSTRAINT="/opt/env/constraints.txt"
ENV NVIDIA_VISIBLE_DEVICES="all"
ENV NVIDIA_DRIVER_CAPABILITIES="compute,utility"
ENV NVIDIA_REQUIRE_CUDA="cuda>=12.0"
ENV NVIDIA_REQUIRE_ARCH="arch>=7.0"
LABEL org.opencontainers.image.title="pytorch"
LABEL org.opencontainers.image.version="2.9.1"
LABEL org.opencontainers.image.base.name="debian-12"
LABEL org.opencontainers.image.description="pytorch 2.9.1 for CUDA 12.8, Python 3.11"
LABEL dev.curator.cell="pytorch-2.9.1-cuda12.8-py3.11"
LABEL dev.curator.cuda="12.8"
LABEL dev.curator.python="3.11"
WORKDIR /home/user
USER 1000:1000
CMD ["python3"]
