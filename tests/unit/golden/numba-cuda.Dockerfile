# hadolint global ignore=DL3006
# DL3006: `base` is a named build context that the engine pins by digest.
FROM base AS start

FROM start AS venv
ARG SOURCE_DATE_EPOCH
RUN python3 -m venv --without-pip /opt/env \
 && mkdir -p /skeleton/opt \
 && cp -a /opt/env /skeleton/opt/ \
 && chown -R 1000:1000 /skeleton/opt/env \
 && find /skeleton -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM venv AS nvidia-cublas-cu12-f2a58e21bfaa
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/nvidia-cublas-cu12-f2a58e21bfaa.txt,target=/tmp/requirements.txt \
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

FROM venv AS cuda-b6f980983813
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/cuda-b6f980983813.txt,target=/tmp/requirements.txt \
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

FROM venv AS numba-cuda-adfcf1e2f12b
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=uv,source=uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=layers/numba-cuda-adfcf1e2f12b.txt,target=/tmp/requirements.txt \
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
COPY --link --from=nvidia-cublas-cu12-f2a58e21bfaa /out/ /
COPY --link --from=cuda-b6f980983813 /out/ /
COPY --link --from=numba-cuda-adfcf1e2f12b /out/ /
COPY --link --from=rest-6a9a6f44a5f5 /out/ /
COPY --link --from=settings /out/ /
ENV PATH="/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV VIRTUAL_ENV="/opt/env"
ENV PIP_CONSTRAINT="/opt/env/constraints.txt"
ENV UV_CONSTRAINT="/opt/env/constraints.txt"
ENV NVIDIA_VISIBLE_DEVICES="all"
ENV NVIDIA_DRIVER_CAPABILITIES="compute,utility"
ENV NVIDIA_REQUIRE_CUDA="cuda>=12.0"
LABEL org.opencontainers.image.title="numba-cuda"
LABEL org.opencontainers.image.version="0.30.4"
LABEL org.opencontainers.image.base.name="debian-13"
LABEL org.opencontainers.image.description="numba-cuda 0.30.4 for CUDA 12.9, Python 3.13"
LABEL dev.curator.cell="numba-cuda-0.30.4-cuda12.9-py3.13"
LABEL dev.curator.cuda="12.9"
LABEL dev.curator.python="3.13"
WORKDIR /home/user
USER 1000:1000
CMD ["python3"]
