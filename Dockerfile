# flowstream with the example pipelines; docker-compose.yml builds and runs it.
FROM python:3.13.5-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY flowstream flowstream
RUN pip install --no-cache-dir ".[compression,uvloop]"
COPY pipelines pipelines

RUN useradd --system flowstream && install --directory --owner=flowstream /data
USER flowstream
STOPSIGNAL SIGTERM
ENTRYPOINT ["flowstream"]
CMD ["--help"]
