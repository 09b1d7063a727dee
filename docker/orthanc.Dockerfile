# The PACS that the tests run against: Debian's own packages, never as root.
FROM debian:12.11-slim

RUN apt-get update \
    && apt-get install --no-install-recommends --yes orthanc=1.10.1+dfsg-* orthanc-dicomweb=1.7+dfsg-* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10002 --home-dir /var/lib/orthanc-data --create-home pacs

COPY docker/orthanc.json /etc/monai_tl/orthanc.json
USER 10002
CMD ["Orthanc", "/etc/monai_tl/orthanc.json"]
