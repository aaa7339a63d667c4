"""File names made of names that users, rows and files give, such as a task's, a relation's or a
user's."""

import contextlib
import difflib
import hashlib
import pathlib
import string

PLAIN = frozenset(string.ascii_lowercase + string.digits + "-_+")
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
LONGEST, SHOWN = 80, 40


def file_name(*names: str | int) -> str:
    """One file name for some names; other names get another one, on any file system.

    Small letters, digits, ``-``, ``_`` and ``+`` stand for themselves, a capital as ``@`` and its
    small letter (some file systems take both for one), every other character as the ``%xx`` of its
    UTF-8 bytes. Several names are joined by dots, of which a name has none, so the result is never
    a path. What would be longer than 80 characters is cut, and its SHA-256 stands behind ``~``.
    """
    return ".".join(map(_part, map(str, names)))


def _part(name: str) -> str:
    written = "".join(map(_character, name)) or "%"
    if written in RESERVED:
        written = f"%{ord(name[0]):02x}{written[1:]}"
    if len(written) <= LONGEST:
        return written
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{written[:SHOWN]}~{digest}"


def _character(character: str) -> str:
    if character in PLAIN:
        return character
    if character in string.ascii_uppercase:
        return f"@{character.lower()}"
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def like_file(path: pathlib.Path) -> str:
    """The file beside a missing one whose name is nearly the same, as a question behind a sentence;
    empty where there is none."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [file.name for file in path.parent.iterdir() if file.name != path.name]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f" Did you mean {str(path.parent / close[0])!r}?" if close else ""


def partial_file(path: pathlib.Path) -> pathlib.Path:
    """Where a file grows until it is whole."""
    return path.with_name(f"{path.name}.partial")


def partial_note(path: pathlib.Path) -> pathlib.Path:
    """What says beside it how it came about."""
    return path.with_name(f"{path.name}.partial.json")
