# The commands are the Makefile's: `docker run IMAGE` is `make demo` without the installation.
FROM python:3.11-slim-bookworm

# git: DVC and the workspace need it; nothing is compiled, every dependency is a wheel
RUN apt-get update \
    && apt-get install --no-install-recommends --yes git=1:2.39.* make=4.3-* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 monai \
    && install --directory --owner monai --group monai /home/monai/.prefect

# DVC's cache trusts file modes, which root ignores: the image never runs as root
USER 10001
WORKDIR /home/monai/workspace
ENV PATH=/home/monai/workspace/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1

COPY --chown=monai:monai . .
RUN git config --global --add safe.directory /home/monai/workspace \
    && git config --global --add safe.directory /workspace \
    && git config --global --add safe.directory /workspace/.git \
    && make install

CMD ["make", "demo"]
