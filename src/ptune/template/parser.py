"""The parser of the template language, and its errors with a caret under the fault."""

import re
from typing import NoReturn

from ptune.errors import TemplateError, nearest
from ptune.template.parts import (
    RESERVED,
    Decoder,
    Field,
    Mask,
    Part,
    PrefixPart,
    Role,
    Sep,
    Soft,
    Text,
    is_bare_name,
    quoted,
    shown,
    unquoted,
)
from ptune.writing_systems import width

FILTERS = ("shorten", "lower", "strip", "capitalize", "join")
MAX_LEARNED = 10_000  # pseudo tokens of a run, or prefix vectors
BARE: dict[str, Part] = {"mask": Mask(), "sep": Sep(), "decoder": Decoder()}
FULL_WIDTH_BRACES = re.compile("\uff5b([^\uff5b\uff5d{}]*)\uff5d")


def parse(source: str) -> tuple[Part, ...]:
    """The parts of a template, or of one of the two shorthands.

    Raises:
        TemplateError: with the template, a caret under the fault, and the nearest right name.
    """
    return tuple(_Parser(_longhand(source)).parts())


def _longhand(source: str) -> str:
    """Write out ``(3, 3, 3)`` and ``[X] ... [Y]``."""
    if counts := re.fullmatch(r"\s*\(?\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)?\s*", source):
        front, middle, end = (f"{{soft:{n}}}" if int(n) else "" for n in counts.groups())
        return " ".join(part for part in (front, "{subject}", middle, "{mask}", end) if part)
    if "[X]" in source and "[Y]" in source:
        return source.replace("[X]", "{subject}").replace("[Y]", "{mask}")
    return source


class _Parser:
    """The parser of one template; ``position`` is the character that it reads next."""

    def __init__(self, source: str):
        self.source, self.position = source, 0

    def parts(self) -> list[Part]:
        """All parts of the template."""
        parts: list[Part] = []
        text = ""
        while self.position < len(self.source):
            if part := self._braces():
                parts += [Text(text), part] if text else [part]
                text = ""
            else:
                text += self._text()
        if text:
            parts.append(Text(text))
        self._check(parts)
        return parts

    def _braces(self) -> Part | None:
        """The part in braces that begins here; None where text does."""
        start = self.position
        if self.source[start] != "{" or self.source[start : start + 2] == "{{":
            return None
        end = _closing(self.source, start)
        if end < 0:
            self._fail("This brace is never closed; a literal one is written {{.", start)
        self.position = end + 1
        return self._part(self.source[start + 1 : end], start + 1)

    def _text(self) -> str:
        """The text that begins here: a sign, or what full-width braces enclose."""
        start = self.position
        sign = self.source[start]
        if self.source[start : start + 2] in ("{{", "}}"):
            self.position += 2
            return sign
        if sign == "}":
            self._fail("This brace closes nothing; a literal one is written }}.", start)
        if wide := FULL_WIDTH_BRACES.match(self.source, start):
            self._check_full_width(wide[1], start, start + len(wide[0]))
            self.position += len(wide[0])
            return wide[0]
        self.position += 1
        return sign

    def _check_full_width(self, body: str, start: int, end: int) -> None:
        """Refuse a part of a template in full-width braces."""
        is_part = re.match(r"(soft|prefix|mask|sep|decoder)(?!\w)", body)
        if is_part or is_bare_name(body.split("|")[0]):
            self._fail(
                f"These are full-width braces, which are text: write {{{body}}}.", start, end
            )

    def _part(self, body: str, start: int) -> Part:
        """The part whose text between the braces is ``body``, which begins at ``start``."""
        end = start + len(body)
        if not body.strip():
            self._fail(
                "Empty braces: write {field}, {soft:3}, {prefix:5}, {mask} or {sep}.",
                start - 1,
                end + 1,
            )
        if re.match(r"soft(?!\w)", body):
            return self._soft(body, start)
        if re.match(r"prefix(?!\w)", body):
            return self._prefix(body, start)
        if re.match(r"role:", body):
            return self._role(body, start)
        if body in BARE:
            return BARE[body]
        if re.match(r"(mask|sep|decoder)(?!\w)", body):
            name = body.split(":")[0].split("|")[0]
            self._fail(f"{{{name}}} takes nothing more.", start, end)
        return self._field(body, start)

    def _field(self, body: str, start: int) -> Field:
        name, *filters = _split_at_bars(body)
        quoted_name = unquoted(name)
        if not quoted_name and not is_bare_name(name):
            hint = ""
            if re.match(r"\s*\w+\s*:", name):
                hint = f" {nearest(name.split(':')[0].strip(), RESERVED)}"
            self._fail(
                f"{name!r} is no field name: letters, digits, - and _ only, and dots between two. "
                f"Any other stands in quotes, as in {{{quoted(name)}}}.{hint}",
                start,
                start + len(name),
            )
        pairs, position = [], start + len(name) + 1
        for text in filters:
            pairs.append(self._filter(text, position))
            position += len(text) + 1
        return Field(quoted_name or name, tuple(pairs))

    def _filter(self, text: str, start: int) -> tuple[str, str]:
        """The name and the argument of a filter whose text begins at ``start``."""
        name, colon, argument = text.partition(":")
        end = start + len(text)
        if name not in FILTERS:
            self._fail(
                f"There is no filter {name!r}. {nearest(name, FILTERS)}", start, start + len(name)
            )
        if name == "shorten" and argument not in ("", "start", "end"):
            self._fail("A field is shortened at its :start or its :end.", start, end)
        if name in ("lower", "capitalize") and argument:
            self._fail(f"The filter {name} takes no argument.", start, end)
        if name != "join":
            return name, argument
        if argument.startswith('"'):
            return name, unquoted(argument)
        return name, argument if colon else ", "

    def _soft(self, body: str, start: int) -> Soft:
        end = start + len(body)
        matched = re.fullmatch(r'soft(?::(?:(\d+)|"([^"]*)"))?(?:@([\w-]+))?', body)
        if not matched:
            self._fail(
                "Soft tokens are written {soft:3}, "
                '{soft:"some words"}, {soft:3@name} or {soft@name}.',
                start,
                end,
            )
        length, words, name = matched.groups()
        self._check_length(length, "There are no 0 soft tokens: leave it out.", start, end)
        self._check_words(words, start, end)
        if length is None and words is None and name is None:
            length = "1"
        return Soft(None if length is None else int(length), words, name)

    def _prefix(self, body: str, start: int) -> PrefixPart:
        end = start + len(body)
        matched = re.fullmatch(r'prefix:(?:(\d+)|"([^"]*)")', body)
        if not matched:
            self._fail('A deep prefix is written {prefix:5} or {prefix:"some words"}.', start, end)
        length, words = matched.groups()
        self._check_length(length, "There is no prefix of 0 vectors: leave it out.", start, end)
        self._check_words(words, start, end)
        return PrefixPart(None if length is None else int(length), words)

    def _role(self, body: str, start: int) -> Role:
        matched = re.fullmatch(r"role:([\w-]+)", body)
        if not matched:
            self._fail(
                "A message begins with {role:user}, {role:system} or {role:assistant}.",
                start,
                start + len(body),
            )
        return Role(matched[1])

    def _check_words(self, words: str | None, start: int, end: int) -> None:
        """Refuse words to start from that are empty."""
        if words is not None and not words.strip():
            self._fail("There are no words to start from.", start, end)

    def _check_length(self, length: str | None, message: str, start: int, end: int) -> None:
        """Refuse a run of no vectors, with ``message``, and one that no LM has room for."""
        if length is None:
            return
        digits = length.lstrip("0")
        if not digits:
            self._fail(message, start, end)
        if len(digits) > 9 or int(digits) > MAX_LEARNED:
            self._fail(f"No LM has room for so many: {MAX_LEARNED:,} are the most.", start, end)

    def _check(self, parts: list[Part]) -> None:
        """Refuse names that are not given exactly once, half of a shorthand, and several masks."""
        self._check_names([part for part in parts if isinstance(part, Soft)])
        self._check_shorthand(parts)
        self._check_once(
            parts,
            Mask,
            "There is one {mask} in a template; an answer of several tokens gets its masks by "
            "itself.",
        )
        self._check_once(parts, Decoder, "There is one {decoder} in a template: it begins once.")

    def _check_once(
        self, parts: list[Part], kind: type[Mask] | type[Decoder], message: str
    ) -> None:
        """Refuse a second part of a kind that stands once, with ``message``."""
        written = shown(kind())
        starts = [matched.start() for matched in re.finditer(re.escape(written), self.source)]
        if sum(isinstance(part, kind) for part in parts) > 1:
            self._fail(message, starts[1], starts[1] + len(written))

    def _check_names(self, runs: list[Soft]) -> None:
        """Refuse a name of soft tokens that is used without being given, or given twice."""
        defined = [run.name for run in runs if run.name and (run.length or run.words)]
        for run in runs:
            if not run.length and not run.words and run.name not in defined:
                start = self.source.index(f"@{run.name}")
                self._fail(
                    f"No soft tokens are named {run.name!r}: write {{soft:3@{run.name}}} once. "
                    f"{nearest(str(run.name), defined)}",
                    start,
                    start + len(f"@{run.name}"),
                )
        if repeated := next((name for name in defined if defined.count(name) > 1), None):
            start = self.source.rindex(f"@{repeated}")
            self._fail(
                f"The name {repeated!r} is given twice: the second time write {{soft@{repeated}}}.",
                start,
                start + len(f"@{repeated}"),
            )

    def _check_shorthand(self, parts: list[Part]) -> None:
        """Refuse one half of LAMA's ``[X] ... [Y]``, which would be text."""
        for form, part_type, instead in (
            ("[X]", Field, "a field, such as {subject}"),
            ("[Y]", Mask, "{mask}"),
        ):
            if form in self.source and not any(isinstance(part, part_type) for part in parts):
                start = self.source.index(form)
                self._fail(
                    f"LAMA's form has both [X] and [Y]; here {form} would be text: "
                    f"write {instead}.",
                    start,
                    start + len(form),
                )

    def _fail(self, message: str, start: int, end: int | None = None) -> NoReturn:
        """Raise the error with the template's line and carets under these characters."""
        source = self.source
        line_start = source.rfind("\n", 0, start) + 1
        line_end = source.find("\n", start) if "\n" in source[start:] else len(source)
        carets = "^" * max(1, width(source[start : min(end or start + 1, line_end)]))
        indent = " " * width(source[line_start:start])
        raise TemplateError(f"{message}\n  {source[line_start:line_end]}\n  {indent}{carets}")


def _closing(source: str, start: int) -> int:
    """The position of the brace that closes the one at ``start``, or -1; braces between double
    quotes are text."""
    in_quotes = False
    for position in range(start + 1, len(source)):
        if source[position] == '"':
            in_quotes = not in_quotes
        elif source[position] == "}" and not in_quotes:
            return position
    return -1


def _split_at_bars(body: str) -> list[str]:
    """What stands between the bars of a field; bars between double quotes are text."""
    pieces, in_quotes = [""], False
    for sign in body:
        in_quotes ^= sign == '"'
        if sign == "|" and not in_quotes:
            pieces.append("")
        else:
            pieces[-1] += sign
    return pieces
