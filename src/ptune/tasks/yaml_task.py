"""A task's YAML file, read and checked."""

import difflib
import os
import pathlib
import re
from typing import Any

from pydantic import ValidationError

from ptune.base import plain_files
from ptune.base.file_names import like_file
from ptune.data import yaml_files
from ptune.errors import ConfigError
from ptune.settings import BUILTIN_LMS
from ptune.tasks.rows.splits import DATA_VARIABLE, SPLITS
from ptune.tasks.schema import DataConfig, TaskConfig
from ptune.tasks.yaml_faults import explained

NO_PRESET = "None"  # the option --preset as it is written for no preset
PATHS = ("vocabulary", "out", "continue_from")
FILES = (*PATHS, "transfer", "reading.words", *(f"data.{split}" for split in SPLITS))
NAMED = pathlib.Path(__file__).parent / "named"
WORDS = ("labels", "verbalizers", "relations", "relabel")  # keys under which everything is a text


def read(path: pathlib.Path, preset: str | None = None) -> TaskConfig:
    """A task's YAML file, or one of ours by its name (trec, boolq, ...); paths in a file are taken
    from its own folder, those in ours from the folder that is worked in.

    Args:
        preset: "code" takes what the file has under ``code``, as its own key ``preset`` does;
            "paper" and "None" do not take it, whatever the file says.

    Raises:
        ConfigError: the file is missing, is not YAML, or says what a task cannot be; the key is
            told.
    """
    if ours := not path.is_file() and (NAMED / f"{path}.yaml").exists():
        path = NAMED / f"{path}.yaml"
    try:
        text = plain_files.read_text(path, "utf-8-sig")
    except OSError as error:
        ours_too = sorted(file.stem for file in NAMED.glob("*.yaml"))
        close = difflib.get_close_matches(str(path), ours_too, n=1)
        listed = f" Tasks that come with ptune: {', '.join(ours_too)}."
        hint = like_file(path) or (f" Did you mean {close[0]!r}?" if close else listed)
        raise ConfigError(
            f"The task file {path} cannot be read: {error.strerror}.{hint}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    raw = yaml_files.parse(text, path, WORDS)
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else "a list" if isinstance(raw, list) else "a text"
        raise ConfigError(
            f"{path} should hold keys and values (name: ..., template: ...), and holds {what}."
        )
    try:
        config = TaskConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explained(error)}") from error
    config = _as_the_code(_with_chat(config, path), path, preset or config.preset)
    folder = pathlib.Path() if ours else path.parent
    data = _placed_data(config.data, folder, path)
    reading = config.reading.model_copy(
        update={"words": folder / config.reading.words} if config.reading.words else {}
    )
    return config.model_copy(
        update={
            "data": data,
            "reading": reading,
            "lm": placed_value("lm", config.lm, folder, path),
            "transfer": tuple(folder / prompt for prompt in config.transfer),
            **{
                name: folder / value
                for name in PATHS
                if (value := getattr(config, name)) and name in config.model_fields_set
            },
        }
    )


def _placed_data(data: DataConfig, folder: pathlib.Path, path: pathlib.Path) -> DataConfig:
    """The files, or the folder of a data set, as the task's folder has them."""
    if data.dataset is not None:
        placed = placed_value("data.dataset", data.dataset, folder, path)
        return data.model_copy(update={"dataset": placed})
    files = {split: getattr(data, split) for split in SPLITS}
    return data.model_copy(
        update={split: _placed(file, folder, path) for split, file in files.items() if file}
    )


def placed_value(key: str, value: Any, folder: pathlib.Path, path: pathlib.Path) -> Any:
    """The value of a key such as data.train: a file, or an LM or a data set that is a folder, as it
    is found from another folder; any other value as it is.

    Args:
        folder: where it lies from.
        path: the file that names it, for messages.

    Raises:
        ConfigError: it names a variable that is not set.
    """
    if isinstance(value, list):
        return [placed_value(key, one, folder, path) for one in value]
    if not isinstance(value, str):
        return value
    if key in FILES:
        return str(_placed(pathlib.Path(value), folder, path))
    if key == "lm":
        name = _expanded(value, path)
        return str(folder / name) if _lies_in(folder, name) else name
    if key == "data.dataset":
        name = _expanded(value, path)
        return str(folder / name) if (folder / name).is_dir() else name
    return value


def _with_chat(config: TaskConfig, path: pathlib.Path) -> TaskConfig:
    """The task with its chat as a template with roles.

    Raises:
        ConfigError: it has a template as well, or a role that is no word.
    """
    if not config.chat:
        return config
    if config.template:
        raise ConfigError(
            f"{path} has both template and chat: the messages of chat are the template, so leave "
            "template out."
        )
    for message in config.chat:
        if not re.fullmatch(r"[\w-]+", message.role):
            raise ConfigError(
                f"{path}: the role {message.role!r} of a message in chat is no word; it is system, "
                "user or assistant."
            )
    written = "".join(f"{{role:{message.role}}}{message.text}" for message in config.chat)
    return config.model_copy(update={"template": written, "chat": ()})


def _as_the_code(config: TaskConfig, path: pathlib.Path, preset: str | None) -> TaskConfig:
    """The task as the paper's released code has it, where that is asked for.

    Raises:
        ConfigError: the file says nothing of such code.
    """
    if preset in (None, "paper", NO_PRESET):
        kept = "paper" if preset == "paper" else None
        return config.model_copy(update={"code": None, "preset": kept})
    if config.code is None:
        raise ConfigError(
            f"{path} says nothing under code, which preset: code would take: leave preset out. Of "
            "the tasks that come with ptune boolq, cb, copa, multirc, record, rte, wic and wsc "
            "do. To cut the fractions of iPET's growth as PET's code does, set pet.fractions to "
            "cut."
        )
    names = config.code.model_fields_set
    update = {name: getattr(config.code, name) for name in names}
    pet = config.pet
    if "fractions" not in pet.model_fields_set:
        pet = pet.model_copy(update={"fractions": "cut"})
    return config.model_copy(update={**update, "code": None, "preset": preset, "pet": pet})


def _placed(file: pathlib.Path, folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A file of rows as the task's folder has it. Where PTUNE_DATA is not set the name stays as it
    is, since the command line may name another file; reading it is refused with the reason
    (``tasks.rows``)."""
    if DATA_VARIABLE in str(file) and "PTUNE_DATA" not in os.environ:
        return file
    return folder / _expanded(str(file), path)


def _lies_in(folder: pathlib.Path, lm: str) -> bool:
    """Whether an LM's name is a path from the task file's folder, and neither a built-in one nor a
    name on the hub."""
    return lm.startswith(".") or lm not in BUILTIN_LMS and (folder / lm).exists()


def _expanded(text: str, path: pathlib.Path) -> str:
    """A path with the user's home for ~ at its start, and with ${PTUNE_NAME} replaced by the
    environment's, or ${PTUNE_NAME:-this} where that is not set. Other variables of the environment
    are not for a task file to read.

    Raises:
        ConfigError: a name does not begin with PTUNE_, or is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if not name.startswith("PTUNE_"):
            raise ConfigError(
                f"{path} speaks of ${{{name}}}, and only variables whose name begins with PTUNE_ "
                "are filled in: "
                f"call it ${{PTUNE_{name}}}."
            )
        if (setting := os.environ.get(name, default)) is None:
            raise ConfigError(
                f"{path} speaks of ${{{name}}}, which is not set: export {name}=... first."
            )
        return setting

    return os.path.expanduser(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text))
