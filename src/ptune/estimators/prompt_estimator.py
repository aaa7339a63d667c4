"""What the classifier and the generator share: parameters, rows, the LM, training, saving."""

import numbers
import pathlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic import Field as Limit
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ptune.answers.readers.reader_table import READERS
from ptune.base import files
from ptune.data.in_memory import check_columns, rows_from
from ptune.data.row import is_missing
from ptune.errors import ConfigError, StoreError, first_fault
from ptune.estimators.input_rows import as_text, is_list_of, is_list_of_texts, plain
from ptune.lm.language_model import LanguageModel
from ptune.model.confidence import fit_confidence
from ptune.model.prompt_model import PromptModel
from ptune.settings import TrainConfig, TrainOverrides
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.resolved.unread import check_rates
from ptune.tasks.schema import AUTO
from ptune.template.fields import numbers_by_text
from ptune.template.parts import Field
from ptune.training.loop import fit as train_prompts
from ptune.training.methods import METHODS, Method, method

NOTE = prompt_folder.ESTIMATOR
Row = dict[str, Any]


class SavedEstimator(BaseModel):
    """What stands in ``estimator.json``."""

    parameters: dict[str, Any]
    fields: Annotated[list[str], Limit(min_length=1)]
    template: str


class PromptEstimator(BaseEstimator):
    """What the classifier and the generator share: parameters, rows, the LM, training, saving."""

    _saved_as: ClassVar[type[SavedEstimator]] = SavedEstimator

    def __init__(
        self,
        lm: Any,
        method: str,
        *,
        template: str | None,
        train: Mapping[str, Any] | None,
        dev_share: float,
        max_length: int | None,
        random_state: Any,
        device: str,
        dtype: str,
    ):
        self.lm = lm
        self.method = method
        self.template = template
        self.train = train
        self.dev_share = dev_share
        self.max_length = max_length
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> Any:
        """Unfitted, the parameters; a fitted estimator is refused.

        Raises:
            StoreError: it is fitted, or its LM is an object.
        """
        if hasattr(self, "model_"):
            raise StoreError(
                f"A fitted {type(self).__name__} is not pickled, since a pickle can run code when "
                "it is read and would hold the whole LM: "
                f"keep it by .save(folder), and take it up by {type(self).__name__}.load(folder)."
            )
        if isinstance(self.lm, LanguageModel):
            raise StoreError(
                f"A {type(self).__name__} over a loaded LM is not pickled, as other processes "
                "would need: give the LM by its folder or name."
            )
        return super().__getstate__()

    def save(self, folder: str | pathlib.Path) -> None:
        """Save the trained prompt as a prompt folder, which ``ptune predict`` and ``ptune.load``
        read too. An estimator that was saved there before is replaced as a whole.

        Raises:
            NotFittedError: it is not fitted.
            StoreError: JSON cannot hold a parameter or a label, or the folder holds prompts or an
                LM that no estimator saved: nothing is written then; or the folder cannot be
                written.
        """
        check_is_fitted(self)
        folder = pathlib.Path(folder)
        note = self._note()
        replaces = self._replaced_in(folder)
        if self._has_tuned_lm:
            self.model_.lm.source = str((folder / "lm").absolute())

        def fill(temporary: str) -> None:
            if self._has_tuned_lm:
                self.model_.lm.save(pathlib.Path(temporary, "lm"))
            for number in range(len(self.model_.tasks)):
                inner_path = f"prompts/{number + 1}" if self.model_.is_ensemble else "."
                prompt_folder.save(
                    self.model_,
                    pathlib.Path(temporary, inner_path),
                    task=number,
                    encoder=True,
                    place=folder / inner_path,
                )
            files.write_json(pathlib.Path(temporary, NOTE), note)

        files.write_folder(folder, fill, replaces)

    def _note(self) -> dict[str, Any]:
        """What ``save`` keeps beside the prompt.

        Raises:
            StoreError: JSON cannot hold a parameter or a label.
        """
        parameters = self.get_params()
        if isinstance(parameters["lm"], LanguageModel):
            parameters["lm"] = parameters["lm"].source
        if not isinstance(parameters["random_state"], int | np.integer | None):
            parameters["random_state"] = self.seed_
        return {
            "estimator": type(self).__name__,
            "parameters": {name: plain(value, name) for name, value in parameters.items()},
            "fields": plain(self.fields_, "fields_"),
            **self._fitted_state(),
        }

    @property
    def _has_tuned_lm(self) -> bool:
        return self.method != AUTO and _tunes_lm(method(self.method))

    def _replaced_in(self, folder: pathlib.Path) -> list[str]:
        """What in a folder gives way to what is saved there.

        Raises:
            StoreError: there are other files where the prompts of this ensemble or its LM go.
        """
        had_note, had_prompt = ((folder / name).exists() for name in (NOTE, "prompt.json"))
        earlier = {"prompts": had_note and not had_prompt, "lm": _has_saved_lm(folder)}
        written = {"prompts": self.model_.is_ensemble, "lm": self._has_tuned_lm}
        for name, is_earlier in earlier.items():
            if written[name] and not is_earlier and (folder / name).exists():
                raise StoreError(
                    f"{folder / name} is there already, and no estimator saved it: choose another "
                    "folder."
                )
        others = [name for name, is_earlier in earlier.items() if is_earlier]
        return [NOTE, *prompt_folder.earlier_files(folder), *others]

    @classmethod
    def load(
        cls,
        folder: str | pathlib.Path,
        lm: LanguageModel | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Self:
        """A fitted estimator from the folder in which ``save`` put it.

        Args:
            lm: the LM; without it, the one that the prompt names is loaded.

        Raises:
            StoreError: the folder is damaged, holds no estimator or another one, or its LM is not
                there.
        """
        folder = pathlib.Path(folder)
        if folder.is_dir() and not (folder / NOTE).exists():
            raise StoreError(
                f"The folder {folder} holds no saved {cls.__name__} ({NOTE}): none was saved "
                "there, or saving it was interrupted; then save it again."
            )
        note = files.read_json(folder / NOTE)
        if not isinstance(note, dict) or note.get("estimator") != cls.__name__:
            raise StoreError(f"{folder / NOTE} is not of a {cls.__name__}.")
        try:
            saved = cls._saved_as.model_validate(note)
        except ValidationError as error:
            raise StoreError(f"{folder / NOTE} is damaged: {first_fault(error)}.") from error
        if unknown := sorted(saved.parameters.keys() - set(cls._get_param_names())):
            raise StoreError(
                f"{folder / NOTE} is damaged: {cls.__name__} has no parameter {unknown[0]!r}. If a "
                "later version of ptune saved it, update ptune."
            )
        estimator = cls(**saved.parameters)
        folders = prompt_folder.folders_in(folder)
        estimator.model_ = prompt_folder.load(folders, lm=lm, device=device, dtype=dtype)
        estimator.fields_ = saved.fields
        estimator.n_features_in_ = len(estimator.fields_)
        try:
            estimator._restore(saved)
        except ValueError as error:
            raise StoreError(f"{folder / NOTE} is damaged: {error}.") from error
        return estimator

    def _fitted_state(self) -> dict[str, Any]:
        """What ``save`` keeps of the fit beside the prompt itself."""
        return {"template": self.template_}

    def _restore(self, saved: Any) -> None:
        """Restore what ``_fitted_state`` has saved.

        Raises:
            ValueError: it does not go with the prompt.
        """
        self.template_ = saved.template

    def _begin(self, X: Any) -> tuple[Method, list[Row]]:
        """The method of a fit, and the rows that it is given.

        Raises:
            ValueError: there are no rows.
            ConfigError: the method is not one that rows with answers alone can train, or dev_share
                is no share.
        """
        self._check_dev_share()
        chosen = self._method()
        return chosen, self._rows(X, reset=True)

    def _rows(self, X: Any, reset: bool) -> list[Row]:
        """Rows of fields: of a list of texts, a list of dictionaries, or a table with a column or
        several.

        Raises:
            ValueError: there are none, one lacks a value, or they have other columns than those
                that were fitted.
            DataError: two columns have one name.
        """
        if is_list_of(X, Mapping):
            return self._checked_fields([dict(row) for row in X], reset)
        if is_list_of_texts(X):
            return self._checked_fields([{"text": text} for text in X], reset)
        if hasattr(X, "columns"):
            check_columns(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            table = [
                {str(name): as_text(value) for name, value in row.items()} for row in rows_from(X)
            ]
            return self._checked_fields(table, reset)
        array = validate_data(self, X, reset=reset, dtype=None, ensure_min_features=1)
        names = ["text"] if array.shape[1] == 1 else [f"x{n}" for n in range(array.shape[1])]
        return self._checked_fields(
            [{name: as_text(value) for name, value in zip(names, values)} for values in array],
            reset,
        )

    def _checked_fields(self, rows: list[Row], reset: bool) -> list[Row]:
        """The rows, if they have the fields that were fitted; with ``reset`` they set those.

        Raises:
            ValueError: there are no rows, or one lacks a field or its value.
        """
        if not rows:
            raise ValueError("There are no rows: 0 sample(s), where at least one is needed.")
        if reset:
            self.fields_ = list(rows[0])
            self.n_features_in_ = len(self.fields_)
        for number, row in enumerate(rows, 1):
            if missing := [name for name in self.fields_ if name not in row]:
                raise ValueError(
                    f"Row {number} has no field {missing[0]!r}; {type(self).__name__} was fitted "
                    f"on rows with {self.fields_}."
                )
            if missing := [name for name in self.fields_ if is_missing(row[name])]:
                raise ValueError(
                    f"Row {number} has no value in {missing[0]!r} (None or NaN): give it a text, "
                    "or leave the row out."
                )
        return rows

    def _method(self) -> Method:
        """The method.

        Raises:
            ConfigError: it needs more than rows with their answers, or would change an LM that
                others use.
        """
        chosen = method(self.method)
        asks_relations = chosen.reader and READERS[chosen.reader].words_are_relations
        if chosen.name in ("pet", "ipet") or asks_relations:
            raise ConfigError(
                f"{chosen.name} is not fitted by rows with labels alone: ptune train and ptune "
                "compare run it."
            )
        if _tunes_lm(chosen) and isinstance(self.lm, LanguageModel):
            raise ConfigError(
                f"{chosen.name} changes the LM, which others may use: give it by its folder or "
                "name, so that it is loaded for this fit."
            )
        return chosen

    def _load_lm(self, chosen: Method | None) -> LanguageModel:
        """The LM: the one that was given, one that estimators share, or one that this fit may
        change.

        Args:
            chosen: the method; None where one is to be chosen that leaves the LM as it is.

        Raises:
            ModelError: it cannot be loaded.
        """
        if isinstance(self.lm, LanguageModel):
            return self.lm
        if chosen is not None and _tunes_lm(chosen):
            return LanguageModel.load(
                str(self.lm), device=self.device, dtype=self.dtype, tuned=True
            )
        return frozen_lm(str(self.lm), self.device, self.dtype)

    def _settings(self, form: TaskForm, chosen: Method) -> TrainConfig:
        """The method's settings of training, with those of ``train`` in their place.

        Raises:
            ConfigError: there is no such setting, its value cannot be, or the method does not read
                it.
        """
        try:
            overrides = TrainOverrides.model_validate(self._train_overrides())
        except ValidationError as error:
            raise ConfigError(f"train: {first_fault(error)}.") from error
        check_rates(overrides, [(form, chosen)])
        return chosen.train.replaced(
            {"seed": self.seed_, **overrides.model_dump(exclude_none=True)}
        )

    def _train_overrides(self) -> dict[str, Any]:
        """The settings of ``train``."""
        return dict(self.train or {})

    def _train(
        self,
        form: TaskForm,
        learning: Learning,
        chosen: Method,
        lm: LanguageModel,
        *,
        rows: list[Row],
        strata: Sequence[Any] | None,
    ) -> None:
        """Train a prompt on rows with their answers, and keep the model.

        Args:
            strata: the label of each row, for rows that are kept back by label.

        Raises:
            PtuneError: the LM, the template, the words or the settings are at fault.
        """
        settings = self._settings(form, chosen)
        train, dev = self._halves(rows, strata, task_members.fields(form))
        model = PromptModel(lm, max_length=self.max_length)
        number = model_task.add(
            model,
            form,
            task_members.members(form, chosen, lm)[0],
            train,
            method=chosen,
            learning=learning,
        )
        self.history_ = []
        if chosen.tune != "nothing":
            trained = train_prompts(
                model,
                {number: (train, dev)},
                settings,
                tune=chosen.tune,
                label=type(self).__name__,
            )
            self.history_ = [vars(evaluation) for evaluation in trained[number].history]
        if dev is not train:
            fit_confidence(model, [number], dev)
        self.model_ = model
        self.template_ = model.tasks[number].task.template.source

    def _check_dev_share(self) -> None:
        """Refuse a ``dev_share`` that is no share.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.dev_share, numbers.Real) or not 0 <= self.dev_share < 1:
            raise ConfigError(
                "dev_share is a share of the rows, from 0 (dev is what is learned from) up to 1, "
                f"and it is {self.dev_share!r}."
            )

    def _halves(
        self, rows: list[Row], strata: Sequence[Any] | None, fields: Sequence[Field]
    ) -> tuple[list[Row], list[Row]]:
        """Rows to learn from, and rows by which the best state is chosen; the same ones where there
        are too few to part. Rows with the same text stay on one side."""
        copies = list(numbers_by_text(rows, fields).values())
        strata = None if strata is None else [strata[numbers[0]] for numbers in copies]
        held_out = round(self.dev_share * len(copies))
        classes = len(set(strata)) if strata is not None else 1
        if (
            held_out < classes
            or len(copies) - held_out < classes
            or strata is not None
            and min(map(list(strata).count, set(strata))) < 2
        ):
            return rows, rows
        parts = train_test_split(
            copies, test_size=held_out, random_state=self.seed_, stratify=strata
        )
        train, dev = ([rows[number] for numbers in part for number in numbers] for part in parts)
        return train, dev


@lru_cache(maxsize=2)
def frozen_lm(source: str, device: str, dtype: str) -> LanguageModel:
    """A frozen LM, which the estimators of a search share."""
    return LanguageModel.load(source, device=device, dtype=dtype)


def _has_saved_lm(folder: pathlib.Path) -> bool:
    """Whether the estimator that is saved in a folder has its tuned LM there."""
    try:
        name = files.read_json(folder / NOTE)["parameters"]["method"]
    except (StoreError, KeyError, TypeError):
        return False
    return name in METHODS and _tunes_lm(METHODS[name])


def _tunes_lm(chosen: Method) -> bool:
    """Whether a method changes the LM."""
    return chosen.tune in ("head", "lm", "both")


def seed_of(random_state: Any) -> int:
    """A seed from scikit-learn's ``random_state``: the number itself, or one that is drawn."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
