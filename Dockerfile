# Separates mounted songs on the CPU, as an ordinary user:
#   docker build -t polyres .
#   docker run --rm --user "$(id -u)" -v "$PWD":/music polyres separate song.mp3
# TORCH_INDEX may name a package index with a CPU build of torch, which is some gigabytes smaller.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=
COPY . /src
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.6" \
    && /venv/bin/pip install --no-cache-dir "/src[studio,listen,figures]"

FROM python:3.12-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HOME=/tmp POLYRES_CACHE=/tmp/polyres
WORKDIR /music
ENTRYPOINT ["polyres"]
CMD ["--help"]
