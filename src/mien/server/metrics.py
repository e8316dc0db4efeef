"""Figures for Prometheus: requests, how long they took, faces, batches, what waits."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server process; with `PROMETHEUS_MULTIPROC_DIR` set, `text` adds up all processes."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("mien_requests", "Requests answered", ("route", "status"), registry=registry)
        self.seconds = Histogram("mien_request_seconds", "Time to answer", ("route",), buckets=SECONDS, registry=registry)
        self.faces = Counter("mien_faces", "Faces recognised", registry=registry)
        self.batches = Histogram("mien_batch_faces", "Faces in a batch of the network", buckets=SIZES, registry=registry)
        self.waiting = Gauge(
            "mien_requests_waiting", "Requests that wait or are worked on", registry=registry, multiprocess_mode="livesum"
        )
        self.cameras = Gauge("mien_cameras", "Open WebSocket connections", registry=registry, multiprocess_mode="livesum")

    def text(self) -> bytes:
        """Return the figures in Prometheus' format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
