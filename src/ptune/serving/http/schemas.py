"""What requests may say. What is not listed is refused, and so is a value that would be ignored."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ptune.settings import refuse_truth

Fields = dict[str, Any]


class Request(BaseModel):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_truth(cls, value, info)


class RowToClassify(Request):
    """A row, and the prompt that answers it."""

    prompt: str
    """The id of the prompt that answers the row."""
    fields: Fields
    """The fields of the prompt's template."""


class ClassifyRequest(Request):
    """Rows that prompts with labels answer."""

    rows: Annotated[list[RowToClassify], Field(min_length=1)]
    """Rows of any prompts with labels; they are answered in one batch."""
    top: Annotated[int, Field(ge=1)] | None = None
    """How many labels to give with their probabilities; all by default."""


class AttentionRequest(Request):
    """A row whose attention is shown."""

    prompt: str
    """The id of the prompt that answers the row."""
    fields: Fields
    """The fields of the prompt's template."""
    layer: Annotated[int, Field(ge=1)] | None = None
    """The layer, from 1; the last by default."""


class StreamOptions(Request):
    """What a streamed answer holds beside its text."""

    include_usage: bool = False
    """Whether a last event tells how many tokens there were."""


class WritingRequest(Request):
    """What both of OpenAI's interfaces take."""

    model: str
    """The id of the prompt."""
    fields: Fields | None = None
    """The fields of the prompt's template, by name."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens to write at most; by default as many as the prompt says."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """0 takes the best token each time, 0.001 or more draws them; by default as the prompt has
    it."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw only from the likeliest tokens that make up this share."""
    n: Annotated[int, Field(ge=1, le=16)] = 1
    """How many texts to draw."""
    stop: str | list[str] | None = None
    """Strings before which a text ends."""
    seed: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None = None
    """The seed of drawing; by default another one each time."""
    stream: bool = False
    """Whether the text comes in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Taken for the sake of clients that send it; it changes nothing."""
    presence_penalty: Literal[0] | None = None
    """Only 0 is possible."""
    frequency_penalty: Literal[0] | None = None
    """Only 0 is possible."""
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Only an empty one is possible."""

    @property
    def most_tokens(self) -> int | None:
        """How many tokens are written at most; None leaves that to the prompt."""
        return self.max_tokens


class CompletionRequest(WritingRequest):
    """What OpenAI's interface for completions takes."""

    prompt: str | Fields | list[str] | list[Fields] | None = None
    """The text of a prompt with one field, or the fields as an object or as its JSON; a list of
    these for several rows."""
    echo: Literal[False] | None = None
    """Only false is possible."""
    best_of: Literal[1] | None = None
    """Only 1 is possible."""
    logprobs: None = None
    """Not offered."""
    suffix: Literal[""] | None = None
    """Not offered."""


class ContentPart(Request):
    """A part of a message; texts are the only ones."""

    type: Literal["text"]
    text: str


class Message(Request):
    """What the user says in a chat."""

    role: Literal["user"]
    """Only user: all else that the LM gets stands in the prompt's template."""
    content: str | list[ContentPart]
    """The text of a prompt with one field, or the JSON of its fields."""
    name: str | None = None

    @property
    def text(self) -> str:
        """The whole message; its parts are joined as they stand."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(WritingRequest):
    """What OpenAI's interface for chats takes."""

    messages: Annotated[list[Message], Field(max_length=1)] = []
    """One message of the user; none where ``fields`` are given."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same as max_tokens."""
    logprobs: Literal[False] | None = None
    """Only false is possible."""

    @model_validator(mode="after")
    def _has_one_most(self) -> Self:
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise ValueError("max_tokens and max_completion_tokens are the same: give one of them")
        return self

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens
