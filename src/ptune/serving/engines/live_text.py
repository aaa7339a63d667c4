"""A text that is handed out while it is written, so that its pieces add up to the whole."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptune.model.running.generate import text_of

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

HALF_A_SIGN = "�"  # what a tokenizer makes of the first bytes of a sign


class LiveText:
    """One text, token by token.

    Attributes:
        ids: its tokens, without the end token.
        end: "stop" when it has ended by itself, "length" when it has as many tokens as it may; None
            while it goes on.

    Args:
        most: how many tokens it may have.
        stops: strings before which it ends.
    """

    def __init__(self, model: "PromptModel", most: int, stops: Sequence[str]):
        self.model, self.most, self.stops = model, most, tuple(stops)
        self.ids: list[int] = []
        self.end: str | None = None
        self._sent = ""
        tokenizer = model.lm.tokens.tokenizer
        self._joins_words = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))

    def add(self, token: int) -> None:
        """Take the next token; after the end nothing is taken."""
        if self.end is not None:
            return
        if token in self.model.lm.ends:
            self.end = "stop"
            return
        self.ids.append(token)
        if self.stops and any(stop in self._decoded() for stop in self.stops):
            self.end = "stop"
        elif len(self.ids) >= self.most:
            self.end = "length"

    @property
    def text(self) -> str:
        """The text so far, as it is when it ends here."""
        return text_of(self.model, self.ids, self.stops)

    def piece(self) -> str:
        """What can be handed out now and was not before; at the end all the rest."""
        text = self.text if self.end is not None else self._settled()
        if len(text) <= len(self._sent) or not text.startswith(self._sent):
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece

    def _decoded(self) -> str:
        tokenizer = self.model.lm.tokens.tokenizer
        return str(tokenizer.decode(self.ids, skip_special_tokens=True))

    def _settled(self) -> str:
        """As much of the text as stays as it is, whatever comes."""
        text = self._decoded().lstrip().rstrip(HALF_A_SIGN)
        if self._joins_words and text.split():
            text = text[: -len(text.split()[-1])]
        for stop in self.stops:
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    text = text[:-length]
                    break
        return text.rstrip()
