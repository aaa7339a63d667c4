"""What Prometheus is told: queue, batches, tokens, and time by prompt."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from ptune.serving.engines.jobs import Job

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.waiting = Gauge("ptune_rows_waiting", "Rows that wait.", registry=registry)
        self.batch_rows = Histogram(
            "ptune_batch_rows", "Rows in a batch.", ["kind"], buckets=ROWS, registry=registry
        )
        self.batch_seconds = Histogram(
            "ptune_batch_seconds",
            "Seconds that a batch took.",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "ptune_tokens", "Tokens read by the LM, padding aside.", ["kind"], registry=registry
        )
        self.row_seconds = Summary(
            "ptune_row_seconds",
            "Seconds from a row's request to its answer.",
            ["prompt"],
            registry=registry,
        )
        self.requests = Counter(
            "ptune_requests", "Requests by status.", ["route", "status"], registry=registry
        )
        self.prompts = Gauge("ptune_prompts", "Prompts that are served.", registry=registry)
        self.prompt_bytes = Gauge(
            "ptune_prompt_bytes", "Bytes of the prompts in memory.", registry=registry
        )

    def ran(self, kind: str, rows: int, seconds: float) -> None:
        """A batch was run; of texts that come and go, one token of each."""
        self.batch_rows.labels(kind).observe(rows)
        self.batch_seconds.labels(kind).observe(seconds)

    def read(self, kind: str, jobs: Sequence[Job]) -> None:
        """Rows went into the LM."""
        self.tokens.labels(kind).inc(sum(job.tokens for job in jobs))

    def answered(self, prompt: str, seconds: float) -> None:
        """A row got its answer."""
        self.row_seconds.labels(prompt).observe(seconds)

    def forget(self, prompt: str) -> None:
        """A prompt was removed."""
        self.row_seconds.remove_by_labels({"prompt": prompt})

    def text(self) -> bytes:
        """All figures in Prometheus's own form."""
        return generate_latest(self.registry)
