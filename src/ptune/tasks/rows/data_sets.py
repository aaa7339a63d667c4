"""Data sets of the hub, or folders of theirs, by the library ``datasets``: their splits are written
as files of JSON lines, which are then read as any others.

Only plain data are read: no code of a data set runs, and no file that could hold some is opened.
"""

import datetime
import decimal
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ptune.base import files
from ptune.errors import ConfigError, DataError, nearest
from ptune.tasks.schema import DataConfig

SPLITS = ("train", "dev", "test", "unlabeled")
PLAIN = ("arrow", "csv", "json", "parquet", "text")  # how files of a data set may be written
OF_A_SLICE = re.compile(r"([^\[\]+]+)(?:\[(\d*):(\d*)\])?")


def as_files(data: DataConfig) -> DataConfig:
    """The splits of a data set as files; without a data set, the same again.

    Raises:
        ConfigError: ``datasets`` is not installed, or an option is not of data sets.
        DataError: the data set, its configuration, a split or a column is not there.
    """
    if data.dataset is None:
        return data
    if data.form != "rows":
        raise ConfigError(f"form: {data.form} is of files, and dataset names a data set.")
    paths = {
        split: _written(data, str(chosen))
        for split in SPLITS
        if (chosen := getattr(data, split)) is not None
    }
    of_data_set = dict.fromkeys(("dataset", "config", "revision", "columns"))
    return data.model_copy(update={**of_data_set, "streaming": False, **paths})


def _written(data: DataConfig, split: str) -> pathlib.Path:
    """The file of a split's rows; its name holds the split and a hash of its content."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"dataset: {data.dataset} is read by the library datasets, which is not installed: pip "
            "install 'ptune[data]'."
        ) from error
    try:
        rows = _loaded(datasets, data, split)
        rows = _with_columns(rows, data)
        lines = "".join(_line(row, data, number) for number, row in enumerate(rows, 1))
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"The data set {data.dataset}, split {split!r}: {reason}") from error
    if not lines:
        raise DataError(f"The data set {data.dataset} has no rows in its split {split!r}.")
    content = lines.encode()
    name = re.sub(r"[^\w.-]+", "-", f"{pathlib.Path(str(data.dataset)).name}-{split}").strip("-")
    cache = pathlib.Path(os.environ.get("PTUNE_CACHE", "~/.cache/ptune")).expanduser() / "rows"
    path = cache / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        files.write_text(path, lines)
    return path


def _loaded(datasets: Any, data: DataConfig, split: str) -> Any:
    """A split of the data set, as ``datasets`` has it."""
    folder = pathlib.Path(str(data.dataset))
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _from_disk(datasets, folder, split)
    builder = datasets.load_dataset_builder(data.dataset, data.config, revision=data.revision)
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in PLAIN:
        raise DataError(
            f"The data set {data.dataset} holds files of the kind {kind!r}, which are not read: "
            f"only {', '.join(PLAIN)} are. Write it as Parquet first."
        )
    if data.streaming:
        return _streamed(builder, data, split)
    return datasets.load_dataset(data.dataset, data.config, revision=data.revision, split=split)


def _streamed(builder: Any, data: DataConfig, split: str) -> Any:
    """The rows of a split as they come, nothing else being fetched."""
    matched = OF_A_SLICE.fullmatch(split)
    if matched is None:
        raise DataError(
            f"The split {split!r} cannot be streamed: a streamed data set has no shares and no "
            "sums of splits, so write train[:1000]."
        )
    name, start, end = matched.groups()
    known = list(builder.info.splits or ())
    if known and name not in known:
        raise DataError(
            f"The data set {data.dataset} has no split {name!r}. {nearest(name, known)}"
        )
    rows = builder.as_streaming_dataset(split=name)
    first = int(start or 0)
    rows = rows.skip(first) if first else rows
    return rows.take(max(0, int(end) - first)) if end else rows


def _from_disk(datasets: Any, folder: pathlib.Path, split: str) -> Any:
    """A split, or a part of one, of a folder that ``save_to_disk`` wrote."""
    loaded = datasets.load_from_disk(str(folder))
    by_name = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    sizes = {name: len(rows) for name, rows in by_name.items()}
    parts = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    chosen = [by_name[part.splitname].select(range(part.from_, part.to)) for part in parts]
    return datasets.concatenate_datasets(chosen)


def _with_columns(rows: Any, data: DataConfig) -> Any:
    """The rows with the columns that are asked for alone."""
    known = rows.column_names
    for name in data.columns or ():
        if known is not None and name not in known:
            raise DataError(
                f"The data set {data.dataset} has no column {name!r}. {nearest(name, known)}"
            )
    return rows.select_columns(list(data.columns)) if data.columns else rows


def _line(row: Mapping[str, Any], data: DataConfig, number: int) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=_text_of) + "\n"
    except TypeError as error:
        name = next((name for name, value in row.items() if not _is_plain(value)), "?")
        others = ", ".join(other for other in row if other != name)
        raise DataError(
            f"The data set {data.dataset}, row {number}: the column {name!r} holds no text, number "
            f"or list ({error}). Name the columns to be read: columns: [{others}]."
        ) from error


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, default=_text_of)
    except TypeError:
        return False
    return True


def _text_of(value: Any) -> Any:
    """A date or an exact number as text.

    Raises:
        TypeError: it is something else, such as a picture.
    """
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")
