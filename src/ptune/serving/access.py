"""Who may use which prompt: access tokens, of which the server knows the hashes alone."""

import hashlib
import hmac
import pathlib
import re
import secrets
import time
from typing import Annotated

from pydantic import Field

from ptune.data import yaml_files
from ptune.errors import ConfigError
from ptune.serving.problems import Problem, refused
from ptune.settings import Config


class Tenant(Config):
    """One entry of the file of tokens: whose the token is, and what it may do."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What the log calls whoever has the token."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64
    """The SHA-256 of the token, in hexadecimal digits."""
    prompts: tuple[str, ...] = ("*",)
    """The prompts that it may use; * stands for any part of a name."""
    rows_per_minute: Annotated[float, Field(gt=0)] | None = None
    """How many rows it may ask for in a minute."""
    admin: bool = False
    """Whether it may put, replace and remove prompts."""
    metrics: bool = False
    """Whether it may read /metrics."""

    def may_use(self, prompt: str) -> bool:
        """Whether the token is good for a prompt."""
        return any(
            re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), prompt, re.DOTALL)
            for pattern in self.prompts
        )


EVERYBODY = Tenant(name="everybody", metrics=True)


class Access:
    """The tokens of a server; without a file of them everybody may use every prompt, and nobody may
    change one.

    Args:
        path: the file of tokens.

    Raises:
        ConfigError: the file cannot be read or says something that cannot be.
    """

    def __init__(self, path: pathlib.Path | None = None):
        self.path = path
        self._changed = self._time_of_change()
        self._tenants = read_tokens(path) if path is not None else []
        self._spent: dict[str, tuple[float, float]] = {}

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return self.path is None

    def tenant(self, authorization: str | None) -> Tenant:
        """Whose token stands in a request's header. Every hash is compared, and each in constant
        time.

        Raises:
            Problem: there is none, or it is not known.
        """
        if self.is_open:
            return EVERYBODY
        scheme, _, token = (authorization or "").partition(" ")
        digest = hash_of(token.strip())
        matching = [one for one in self._tenants if hmac.compare_digest(one.sha256, digest)]
        if scheme.lower() != "bearer" or not matching:
            raise Problem(
                401,
                "No valid token",
                "Send a token that this server knows: Authorization: Bearer TOKEN.",
            )
        return matching[0]

    def spend(self, tenant: Tenant, rows: int) -> None:
        """Count rows that a tenant asks for.

        Raises:
            Problem: they are more than it may ask for now.
        """
        if tenant.rows_per_minute is None:
            return
        now, most = time.monotonic(), max(tenant.rows_per_minute, 1.0)
        left, since = self._spent.get(tenant.name, (most, now))
        left = min(most, left + (now - since) * tenant.rows_per_minute / 60)
        if rows > most:
            raise refused(f"This token may ask for {int(most)} rows at a time, not for {rows}.")
        if rows > left:
            self._spent[tenant.name] = left, now
            seconds = int((rows - left) * 60 / tenant.rows_per_minute) + 1
            detail = f"This token may ask for {tenant.rows_per_minute:g} rows a minute."
            raise Problem(429, "Too many rows", detail, retry_after=seconds)
        self._spent[tenant.name] = left - rows, now

    def reload_if_changed(self) -> bool:
        """Read the file again where it has changed, so that a token that was taken out is no longer
        good; whether it was read.

        Raises:
            ConfigError: the file is at fault; the tokens that were known stay so.
        """
        changed = self._time_of_change()
        if self.path is None or changed == self._changed:
            return False
        self._changed = changed
        self._tenants = read_tokens(self.path)
        return True

    def _time_of_change(self) -> int:
        try:
            return self.path.stat().st_mtime_ns if self.path is not None else 0
        except OSError:
            return 0


def hash_of(token: str) -> str:
    """The hash by which the file knows a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token(name: str) -> tuple[str, str]:
    """A new token of 256 random bits, and its lines for the file of tokens."""
    token = f"ptune-{secrets.token_urlsafe(32)}"
    quoted = "'" + name.replace("'", "''") + "'"
    lines = f"- name: {quoted}\n  sha256: {hash_of(token)}\n  prompts: ['*']\n"
    return token, lines


def read_tokens(path: pathlib.Path) -> list[Tenant]:
    """The entries of a file of tokens.

    Raises:
        ConfigError: it cannot be read, or an entry is at fault.
    """
    try:
        entries = yaml_files.parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            f"{path} should be a list with an entry for each token: - name: ..., sha256: ...; "
            "ptune serve --new-token NAME makes one."
        )
    tenants = [_tenant(path, number, entry) for number, entry in enumerate(entries, 1)]
    names = [tenant.name for tenant in tenants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path} has two entries of the name {twice!r}.")
    hashes: dict[str, str] = {}
    for tenant in tenants:
        if (other := hashes.setdefault(tenant.sha256, tenant.name)) != tenant.name:
            raise ConfigError(f"{path}: {other!r} and {tenant.name!r} have one token (sha256).")
    return tenants


def _tenant(path: pathlib.Path, number: int, entry: dict[str, object]) -> Tenant:
    if missing := next((key for key in ("name", "sha256") if key not in entry), None):
        raise ConfigError(f"{path}, entry {number}: {missing} is missing.")
    try:
        return Tenant(**{str(key): value for key, value in entry.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}, entry {number}: {error}") from error
