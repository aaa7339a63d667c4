"""Plain files alone are opened: whoever reads a pipe or a device may wait, or read, for ever."""

import errno
import os
import pathlib

Path = str | os.PathLike[str]
OTHER = "it is a pipe or a device, and no plain file"
TEXT_BYTES = 1 << 28


def is_other(path: Path) -> bool:
    """Whether something stands there that is neither a plain file nor a folder."""
    path = pathlib.Path(path)
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return False  # whoever opens it says why it cannot be read


def check(path: Path) -> None:
    """Refuse a pipe or a device.

    Raises:
        OSError: it is one.
    """
    if is_other(path):
        raise OSError(errno.EINVAL, OTHER, os.fspath(path))


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a plain file that is read whole.

    Raises:
        OSError: it cannot be read, is a pipe or a device, or far larger than any such file.
        UnicodeDecodeError: it is not in that encoding.
    """
    check(path)
    with open(path, encoding=encoding) as stream:
        if (size := os.fstat(stream.fileno()).st_size) > TEXT_BYTES:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, which is far too large for it")
        return stream.read()
