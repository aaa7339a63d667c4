"""Pruning: a trial of a search is ended where the best dev score that its first seed had so far is
below the median of what finished trials had at the same step (Golovin et al. 2017, "Google Vizier",
the median stopping rule; Optuna's ``MedianPruner``).

The runs of the other seeds end with it at their next look at dev. What was decided stands in the
study, so that a run that was killed and goes on ends where it would have.
"""

from typing import TYPE_CHECKING

from ptune.experiments.sweep.sweep_file import SweepRun
from ptune.training.methods import PET

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

FINISHED = 5  # trials that there are before others are held against them
PRUNED_AT = "pruned at step"


def is_pruned(
    study: "Study", storage: "BaseStorage", number: int, *, step: int, dev: float | None
) -> bool:
    """Whether a run of a trial ends at a look at dev.

    Args:
        number: of the trial.
        dev: the best dev score so far, where the run is that of the first seed.
    """
    from optuna.pruners import MedianPruner

    trial = study.get_trials(deepcopy=False)[number]
    if PRUNED_AT in trial.user_attrs:
        return step >= trial.user_attrs[PRUNED_AT]
    is_repeated = trial.last_step is not None and step < trial.last_step
    if dev is None or is_repeated:
        return False
    storage.set_trial_intermediate_value(trial._trial_id, step, dev)
    trial = study.get_trials(deepcopy=False)[number]
    if not MedianPruner(n_startup_trials=FINISHED).prune(study, trial):
        return False
    storage.set_trial_user_attr(trial._trial_id, PRUNED_AT, step)
    return True


def trains_several(run: SweepRun) -> bool:
    """Whether a run trains more than one prompt, so that no single dev score ends it."""
    return run.parts.method.name in PET or bool(run.parts.form.prompt_by)
