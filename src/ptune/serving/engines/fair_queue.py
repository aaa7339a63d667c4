"""Rows that wait, in a line for each tenant; the lines take turns."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from ptune.serving.engines.jobs import Job

LINES = 10  # so many full lines may wait altogether


class QueueFull(Exception):
    """No more rows of this tenant may wait."""


class FairQueue:
    """Rows that wait. Not safe for threads by itself: the scheduler holds its lock.

    Attributes:
        most: how many rows of one tenant may wait.
    """

    def __init__(self, most: int):
        self.most = most
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def waiting_of(self, tenant: str) -> int:
        """How many rows of a tenant wait."""
        return len(self._lines.get(tenant, ()))

    def put(self, jobs: Iterable[Job]) -> None:
        """Let rows of one tenant wait, all of them or none.

        Raises:
            QueueFull: too many would wait.
        """
        jobs = list(jobs)
        tenant = jobs[0].tenant
        self._forget_unwanted(tenant)
        if self.waiting_of(tenant) + len(jobs) > self.most:
            raise QueueFull
        if len(self) + len(jobs) > self.most * LINES:
            raise QueueFull
        self._lines.setdefault(tenant, deque()).extend(jobs)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Let rows wait again that were taken and did not fit, in front of their lines."""
        for job in reversed(list(jobs)):
            self._lines.setdefault(job.tenant, deque()).appendleft(job)
            self._lines.move_to_end(job.tenant, last=False)

    def take(self, most: int, fits: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """Rows for a batch: one of each tenant in turn, as long as there are any that fit."""
        taken: list[Job] = []
        passed: set[str] = set()
        while self._lines and len(taken) < most:
            tenant = next((name for name in self._lines if name not in passed), None)
            if tenant is None:
                break
            job = self._first_wanted(tenant)
            if job is None:
                del self._lines[tenant]
            elif fits(job):
                taken.append(self._lines[tenant].popleft())
                self._lines.move_to_end(tenant)
            else:
                passed.add(tenant)
        return taken

    def clear(self) -> list[Job]:
        """All rows that wait; none do afterwards."""
        jobs = [job for line in self._lines.values() for job in line]
        self._lines.clear()
        return jobs

    def _first_wanted(self, tenant: str) -> Job | None:
        line = self._lines[tenant]
        while line and not line[0].is_wanted:
            line.popleft()
        return line[0] if line else None

    def _forget_unwanted(self, tenant: str) -> None:
        """Give the places free of those who have left."""
        if line := self._lines.get(tenant):
            self._lines[tenant] = deque(job for job in line if job.is_wanted)
