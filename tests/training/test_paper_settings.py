"""The papers' settings: taken where they are asked for, and replaced by what a task says."""

import pytest

from ptune.errors import ConfigError
from ptune.experiments.compare import compare_rows
from ptune.experiments.probe import probe_setup
from ptune.settings import PetConfig, TrainOverrides
from ptune.tasks import task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import METHODS
from ptune.training.paper_settings import PAPER, PAPER_PET, preset_method, preset_pet

TASK = {"name": "t", "patterns": ["{x} {mask}"], "labels": {"a": "great", "b": "bad"}}


def test_a_papers_settings_take_the_place_of_ours_and_a_tasks_that_of_both():
    assert preset_method("prompt-tuning", None) is METHODS["prompt-tuning"]
    task = TaskConfig.model_validate({**TASK, "method": "prompt-tuning", "preset": "paper"})
    parts = resolve.training(task)
    settings = parts.train
    assert (settings.optimiser, settings.learning_rate, settings.steps) == ("adafactor", 0.3, 30000)
    assert task_members.members(parts.form, parts.method)[0].template == "{soft:100} {x} {mask}"
    assert parts.method.init == resolve.shown_method(task).init == "labels"
    changed = task.model_copy(update={"train": task.train.model_copy(update={"steps": 7})})
    settings = resolve.training(changed).train
    assert (settings.steps, settings.learning_rate) == (7, 0.3)
    ours = resolve.training(TaskConfig.model_validate({**TASK, "method": "prompt-tuning"}))
    assert task_members.members(ours.form, ours.method)[0].template == "{soft:20} {x} {mask}"


def test_of_pet_what_the_task_says_stays():
    said = PetConfig.model_validate({"repetitions": 2})
    both = preset_pet(said, "paper")
    assert (both.repetitions, both.distil.steps, both.held_out) == (2, 5000, 0)
    assert preset_pet(said, None) is said and preset_pet(PetConfig(), "paper") == PAPER_PET
    assert PAPER["pet"].train.auxiliary == 1e-4


def test_a_method_without_a_papers_settings_is_refused_and_an_untrained_one_is_the_same():
    assert preset_method("manual", "paper") is METHODS["manual"]
    with pytest.raises(ConfigError, match="no paper's settings of contrastive.*prefix-tuning"):
        preset_method("contrastive", "paper")
    manual, p_tuning = probe_setup.methods_of("manual,p-tuning", "paper", train=TrainOverrides())
    assert manual == METHODS["manual"] and p_tuning.train.learning_rate == 1e-5
    with pytest.raises(ConfigError, match="no paper's settings of fine-tune"):
        probe_setup.methods_of("all", "paper", train=TrainOverrides())


def test_a_comparison_gives_all_methods_as_many_steps(tmp_path):
    (tmp_path / "t.yaml").write_text(
        'name: t\npreset: paper\npatterns: ["{x} {mask}"]\nlabels: {a: great, b: bad}\n'
    )
    with pytest.raises(ConfigError, match="t says preset: paper, and compare"):
        compare_rows.read_tasks([str(tmp_path / "t.yaml")])
