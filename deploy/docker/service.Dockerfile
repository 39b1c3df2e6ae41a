# One image for every service: docker-compose.yml and Helm choose the module to run.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git libgomp1 libnuma1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 strata && mkdir /state /public /witness && chown strata /state /public /witness
WORKDIR /app
COPY constraints.txt ./
# PyTorch's CPU build has an index of its own; give its URL with --build-arg STRATA_TORCH_INDEX=...
ARG STRATA_TORCH_INDEX
COPY deploy/setup.sh deploy/setup.sh
COPY libs libs
COPY services services
RUN STRATA_TORCH_INDEX="$STRATA_TORCH_INDEX" bash deploy/setup.sh /opt/venv
COPY . .
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER strata
