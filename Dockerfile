# The same two lines that ./run runs: hash-pinned dependencies, then our package without looking any further.
FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --create-home pacs \
 && mkdir /data && chown 10001:10001 /data && chmod 700 /data
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pacs pacs
COPY processors processors
COPY migrations migrations
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER 10001
ENV PACS_HOME=/data PACS_DICOM_HOST=0.0.0.0 PACS_WEB_HOST=0.0.0.0
VOLUME /data
EXPOSE 11112 8080
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["pacs", "health"]
CMD ["pacs", "serve"]
