"""What is wrong with a request, as a problem document (RFC 9457)."""

from typing import Any


class Problem(Exception):
    """A request that is not answered as it stands.

    Attributes:
        status: the HTTP status.
        title: what kind of problem it is.
        detail: what is wrong and what to do, as sentences.
        field: where in the request it is, such as "rows[2].fields"; None where it is in no field.
        retry_after: seconds after which the same request may be answered.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(detail)
        self.status, self.title = status, title
        # what a request said may stand in it, and need not be Unicode
        self.detail = detail.encode("utf-8", "backslashreplace").decode()
        self.field, self.retry_after = field, retry_after

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            document["field"] = self.field
        # where OpenAI's clients look for the message
        message = {"message": self.detail, "type": self.title, "param": self.field, "code": None}
        return document | {"error": message}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer, its type aside."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def refused(detail: str, field: str | None = None) -> Problem:
    """A request that says something that cannot be."""
    return Problem(400, "The request cannot be answered as it stands", detail, field=field)


def overlong() -> Problem:
    """A request that was not answered in time."""
    return Problem(
        504,
        "Out of time",
        "The answer was not ready in the time that a request may take.",
        field=None,
        retry_after=1,
    )


def internal() -> Problem:
    """A fault of the server."""
    return Problem(
        500, "A fault of the server", "The row could not be answered. The server's log says more."
    )
