"""A file as it lies on the disk: what it is by its first bytes, how it is unpacked and decoded, and
which line of it is odd."""

import gzip
import io
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

from ptune.base import plain_files
from ptune.base.file_names import like_file
from ptune.errors import DataError

GZIP = b"\x1f\x8b"
SAVE_AS_CSV = "save it as CSV (UTF-8), or as JSON lines, where it was made"
UNPACK = "unpack it first"
SIGNATURES = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls) or another Office file", SAVE_AS_CSV),
    (
        b"PAR1",
        "a Parquet file",
        "write it as JSON lines, as by pandas: read_parquet(...).to_json(..., orient='records', "
        "lines=True)",
    ),
    (
        b"ARROW1",
        "an Arrow file",
        "write it as JSON lines, as by datasets: Dataset.from_file(...).to_json(...)",
    ),
    (
        b"\xff\xff\xff\xff",
        "an Arrow stream",
        "write it as JSON lines, as by datasets: Dataset.from_file(...).to_json(...)",
    ),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"%PDF", "a PDF document", "rows are needed, as CSV or JSON lines"),
    (b"\x93NUMPY", "a NumPy array", "rows are needed, as CSV or JSON lines"),
    (b"\x89PNG", "a picture", "rows are needed, as CSV or JSON lines"),
    (
        b"version https://git-lfs.github.com",
        "a pointer of Git LFS that stands for the file",
        "fetch the file itself with `git lfs pull`",
    ),
    (b"BZh", "packed by bzip2", UNPACK),
    (b"\xfd7zXZ", "packed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
)
PICKLE = re.compile(rb"\x80[\x02-\x05]")
WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)",
    re.IGNORECASE | re.DOTALL,
)
MARKUP = re.compile(rb"\s*<\?xml", re.IGNORECASE)
BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
NOTHING = 0.6
"""The share of every other byte that is nothing in UTF-16 of a Latin script."""
UNDECODED = re.compile("[\udc80-\udcff]")
LINE_CHARACTERS = 1 << 29
UNPACKED_BYTES = 1 << 27
UNPACKED_TIMES = 200
"""A packed file may become so many times as large, and in any case so many bytes."""
GUESSED_BYTES = 64 * 1024
WESTERN_SHARE = 0.3
"""The share of bytes beyond ASCII that lines in a western language have at most."""
WESTERN_LETTERS = bytes.fromhex(
    "8c 9c c0 c1 c2 c4 c5 c6 c7 c8 c9 ca cb cd cf d1 d3 d4 d6 d8 d9 da dc df e0 e1 e2 e3 e4 e5 e6"
    "e7 e8 e9 ea eb ec ed ee ef f1 f2 f3 f4 f5 f6 f8 f9 fa fb fc"
)
WINDOWS_SIGNS = bytes.fromhex("80 85 91 92 93 94 95 96 97 99 a0 a3 a9 ab ae b0 b4 bb bd")
WESTERN = WINDOWS_SIGNS + WESTERN_LETTERS
"""What Windows programs put into English texts beside ASCII: curly quotation marks, dashes, dots,
the euro's sign."""


def form_of(path: pathlib.Path) -> str:
    """How a file is called to be: its ending in small letters, without that of packing
    (``rows.CSV.gz``: ".csv")."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if endings[-1:] == [".gz"]:
        endings.pop()
    return endings[-1] if endings else ""


@contextmanager
def opened(
    path: pathlib.Path, encoding: str | None = None, newline: str = "\n", lenient: bool = False
) -> Iterator[TextIO]:
    """A file's text, unpacked where it is gzip's, without a byte order mark; its lines end where
    ``newline`` stands.

    Args:
        lenient: bytes that are not of the encoding stay in their lines as lone surrogates
            (``is_undecoded`` sees them), so that the other lines can be read. UTF-16 and UTF-32
            cannot be read so.

    Raises:
        DataError: it cannot be read, is of a kind that holds no plain rows, or is not in that
            encoding; the line is told.
    """
    try:
        with _unpacked(path) as stream:
            start = stream.read(4096)
        _refuse_other_kinds(path, start, encoding)
        with (
            _unpacked(path) as stream,
            _Text(
                stream,
                encoding=encoding or "utf-8-sig",
                errors="surrogateescape" if lenient else None,
                newline=newline,
            ) as text,
        ):
            yield text
    except OSError as error:
        raise _not_opened(path, error) from error
    except zlib.error as error:
        raise DataError(f"{path} is packed by gzip and damaged ({error}): copy it anew.") from error
    except EOFError as error:
        raise DataError(
            f"{path} is packed by gzip and ends before its end: copy it anew."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(_not_decoded(path, encoding)) from error
    except UnicodeError as error:
        raise DataError(f"{path} is not {encoding} text: {error}.") from error
    except LookupError as error:
        raise DataError(
            f"{path}: {error}. Encodings are named as in Python: utf-8, utf-16, latin-1, cp1252, "
            "gb18030, shift_jis."
        ) from error


def _not_opened(path: pathlib.Path, error: OSError) -> DataError:
    like = like_file(path) if isinstance(error, FileNotFoundError) else ""
    return DataError(f"{path} cannot be read: {error.strerror or error}.{like}")


def is_undecoded(text: str) -> bool:
    """Whether a text of a file that was opened leniently has bytes that are not of the encoding."""
    return UNDECODED.search(text) is not None


def undecoded(path: pathlib.Path, line: int, encoding: str | None, skipped: bool) -> str:
    """What to tell of a line that is not of the encoding: where it is skipped, its place; else
    what encoding it may be too."""
    if skipped:
        return f"{path}, line {line}: not {encoding or 'UTF-8'} text."
    return _not_decoded(path, encoding)


def _unpacked(path: pathlib.Path) -> BinaryIO:
    """The bytes of a file, unpacked where gzip has packed it.

    Raises:
        DataError: it is a pipe or a device.
        OSError: it cannot be read.
    """
    if plain_files.is_other(path):
        raise DataError(
            f"{path} cannot be read: {plain_files.OTHER}. A file of rows is read more than once; "
            "predict and generate take rows through a pipe from standard input."
        )
    return io.BufferedReader(_Unpacking(path)) if is_packed(path) else open(path, "rb")


class _Unpacking(io.RawIOBase):
    """What gzip has packed, as long as it is not far more than natural rows can become."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path, self.unpacked = path, 0
        self.stream = gzip.open(path, "rb")  # noqa: SIM115 (closed by close)
        self.most = max(UNPACKED_BYTES, UNPACKED_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.unpacked += len(data)
        if self.unpacked > self.most:
            raise DataError(
                f"{self.path} unpacks to more than {UNPACKED_TIMES} times its size, which rows do "
                "not: unpack it first, if it is to be trusted."
            )
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Text(io.TextIOWrapper):
    """A file's text, whose lines have an end somewhere."""

    def __next__(self) -> str:  # type: ignore[override]
        if not (line := self.readline(LINE_CHARACTERS)):
            raise StopIteration
        if len(line) == LINE_CHARACTERS and line[-1] not in "\r\n":
            raise DataError(
                f"A line of {self.name} has more than {LINE_CHARACTERS:,} characters: is it a file "
                "of rows?"
            )
        return line


def is_packed(path: pathlib.Path) -> bool:
    """Whether a file is packed by gzip."""
    with open(path, "rb") as stream:
        return stream.read(2) == GZIP


def _refuse_other_kinds(path: pathlib.Path, start: bytes, encoding: str | None) -> None:
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is {_in_archive(path)}")
    for signature, kind, advice in SIGNATURES:
        if start.startswith(signature):
            raise DataError(f"{path} is {kind}: {advice}.")
    if PICKLE.match(start):
        raise DataError(
            f"{path} is a pickle, which can run any program when it is opened and is never read: "
            "write the rows as JSON lines."
        )
    if WEB_PAGE.match(start):
        raise DataError(
            f"{path} is a web page (HTML) and not the file that was to be downloaded: take the "
            "address of the file itself."
        )
    if MARKUP.match(start):
        raise DataError(f"{path} is XML: rows are read from CSV, TSV, JSON or JSON lines.")
    if encoding is None:
        for mark, name in BYTE_ORDER_MARKS:
            if start.startswith(mark):
                raise DataError(
                    f"{path} is not UTF-8 text but {name.upper()}, by its first bytes: save it as "
                    "UTF-8, or read it as it is "
                    f"by data: {{encoding: {name}}} (--encoding {name} of the other commands)."
                )

        if name := two_bytes_each(start):
            raise DataError(
                f"{path} is not UTF-8 text but seems to be {name.upper()}, since every other byte "
                f"is nothing: save it as UTF-8, or read it as it is by data: {{encoding: {name}}} "
                f"(--encoding {name} of the other commands)."
            )


def _in_archive(path: pathlib.Path) -> str:
    """What a zip archive is, and what to do with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return f"an Excel workbook (.xlsx): {SAVE_AS_CSV}."
    if any(name.startswith(("word/", "ppt/")) for name in names) or "mimetype" in names:
        return f"an Office document: {SAVE_AS_CSV}."
    if not names:
        return f"an Excel workbook (.xlsx) or another zip archive: {SAVE_AS_CSV}, or unpack it."
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"a zip archive that holds {names[0]}{more}: unpack it, and name that file."


def two_bytes_each(start: bytes) -> str:
    """UTF-16 without its mark, which shows by the bytes that are nothing; empty for other text."""
    half = len(start) // 2
    for name, part in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if half >= 4 and part.count(0) > NOTHING * half and start.count(0) < 1.2 * part.count(0):
            return name
    return ""


def _not_decoded(path: pathlib.Path, encoding: str | None) -> str:
    """What is wrong with the encoding: the first line that cannot be read, and what encoding it
    might be."""
    with _unpacked(path) as stream:
        if encoding is not None:
            return (
                f"{path} is not {encoding} text: {_first_fault(stream, encoding)}. Another "
                f"encoding is given by data: {{encoding: ...}}."
            )
        fault = _first_fault(stream, "utf-8")
    guess = guessed_encoding(path)
    advice = (
        f" It may be {guess}: data: {{encoding: {guess}}} reads it as that (--encoding {guess} of "
        "the other commands)."
        if guess
        else " data: {encoding: ...} reads another encoding."
    )
    return f"{path} is not UTF-8 text ({fault}); save it as UTF-8.{advice}"


def _first_fault(stream: BinaryIO, encoding: str) -> str:
    before = 0
    for number, line in enumerate(stream, 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            return f"{error.reason} in line {number}, at byte {before + error.start}"
        before += len(line)
    return "the text ends too early"


def guessed_encoding(path: pathlib.Path) -> str | None:
    """The encoding that a file's first part seems to have, where the library that guesses is
    installed; None where it is not, or has no guess."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    sample = b""
    with _unpacked(path) as stream:
        for line in stream:
            sample += line if not line.isascii() else b""
            if len(sample) > GUESSED_BYTES:
                break
    beyond = [byte for byte in sample if byte >= 128]
    if len(beyond) < WESTERN_SHARE * len(sample) and all(map(WESTERN.__contains__, beyond)):
        return "cp1252"
    best = from_bytes(sample).best()
    return None if best is None else str(best.encoding).replace("_", "-")


def start_of(path: pathlib.Path) -> bytes:
    """The first bytes of a file, unpacked.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with _unpacked(path) as stream:
            return stream.read(4096)
    except OSError as error:
        raise _not_opened(path, error) from error
    except EOFError:
        return b""  # told by who reads on


def is_utf8(path: pathlib.Path) -> bool:
    """Whether all of a file is UTF-8; of one that cannot be read, that is not known and told by who
    reads it."""
    try:
        with opened(path) as stream:
            while stream.read(1 << 16):
                pass
    except DataError:
        return False
    return True


def line_end(path: pathlib.Path, encoding: str | None = None) -> str:
    """What ends a file's lines: a line feed (with or without a carriage return before it), or where
    it has none, a carriage return."""
    with opened(path, encoding, lenient=True) as stream:
        while block := stream.read(1 << 16):
            if "\n" in block:
                return "\n"
    return "\r"
