# flowstream with the example pipelines; docker-compose.yml builds and runs it.
FROM python:3.13.5-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY flowstream flowstream
COPY grafana grafana
RUN pip install --no-cache-dir ".[compression,uvloop]"
COPY pipelines pipelines

# Where the orders pipeline keeps its warehouse, and an embedded broker its streams.
RUN useradd --system flowstream && \
    install --directory --owner=flowstream /data /app/.flowstream
ENV ORDERS_WAREHOUSE=/data/orders.sqlite3
USER flowstream
STOPSIGNAL SIGTERM
ENTRYPOINT ["flowstream"]
CMD ["--help"]
