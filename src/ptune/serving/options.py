"""The options of ``ptune serve``."""

import pathlib
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ptune.settings import Config, Device, Dtype, Lm


class ServeConfig(Config):
    """Serve saved prompts over HTTP, all of them on one frozen LM, with a page to try them in the
    browser. Without a prompt it serves three with labels that come with ptune, for the built-in LM,
    and with --lm builtin-causal one that writes."""

    prompts: tyro.conf.Positional[tuple[pathlib.Path, ...]] = ()
    """The folders of saved prompts; each is served under its folder's name."""
    bank: pathlib.Path | None = None
    """A folder of such folders. It is watched: prompts that are put there, replaced or removed are
    so in the server too, and the administrator's requests change this folder."""
    lm: Lm | None = None
    """The LM; by default the one that the first prompt names."""
    engine: Literal["auto", "batch", "continuous", "vllm"] = "auto"
    """How texts are written. batch: the rows that wait become one batch, whatever their prompts
    are. continuous (causal LMs): a row joins the texts that are being written at any token. vllm
    (causal LMs): a vLLM server at --vllm-url writes them. auto: continuous on a GPU where the LM
    can, else batch."""
    vllm_url: str = "http://127.0.0.1:8001"
    """Where --engine vllm finds its server, which nobody else should reach; it runs the same LM."""
    vllm_prefixes: pathlib.Path | None = None
    """The folder from which that server reads deep prefixes (the registry of its connector)."""
    host: str = "127.0.0.1"
    """The address to listen at. Any other than this machine's own needs --tokens, or --open."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """The port to listen at; 0 takes a free one."""
    tokens: pathlib.Path | None = None
    """A YAML file of access tokens, each with the prompts that it may use; see the guide."""
    new_token: str | None = None
    """Print a new access token and its lines for the file of tokens, under this name, and end."""
    open: bool = False
    """Listen at any address without tokens: whoever reaches the port may use every prompt."""
    device: Device = "auto"
    """auto (a GPU if there is one), cpu, cuda, ..."""
    dtype: Dtype = "auto"
    """auto: the number format in which the first prompt was trained."""
    wait_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Milliseconds within which another row must come for a batch to wait for it; while rows keep
    coming it waits for half the time of the last batch at most."""
    rows: Annotated[int, Field(ge=1)] = 64
    """Rows in a batch at most, and texts that are written at once."""
    batch_tokens: Annotated[int, Field(ge=1)] = 16384
    """Tokens in a batch at most, padding and tokens to be written included; a single longer row
    runs alone."""
    queue: Annotated[int, Field(ge=1)] = 1000
    """Rows of one token that may wait; further requests are answered with status 429."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which a request that is not answered ends with status 504."""
    drain: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that requests in progress get to end when the server is stopped."""
    memory_mb: Annotated[int, Field(ge=1)] = 1024
    """Megabytes for prompts that are kept in memory; the least recently used ones are read from
    the disk again."""
    text_mb: Annotated[int, Field(ge=0)] = 256
    """Megabytes for what the LM makes of texts that stand before soft tokens and come again, as an
    instruction does that many prompts share; causal LMs, rows with labels. 0 keeps nothing."""
    max_body_kb: Annotated[int, Field(ge=1)] = 1024
    """Kilobytes in the body of a request at most."""
    max_prompt_mb: Annotated[int, Field(ge=1)] = 64
    """Megabytes in a prompt that is sent to the server at most."""
    max_rows: Annotated[int, Field(ge=1)] = 256
    """Rows in a request at most."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    """Tokens that a request may let the LM write at most."""
    log_texts: bool = False
    """Write the rows of requests into the log too."""
