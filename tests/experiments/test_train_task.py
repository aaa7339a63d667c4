"""Training a task from its file: what is saved, and what is not."""

import json
import re

import pytest
import tiny
import torch
import two_users
from two_users import TOWNS

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError, DataError, DivergedError, PtuneError
from ptune.experiments.beginning import learning_rate
from ptune.experiments.train import train_auto, train_checks, train_results, train_task
from ptune.experiments.train.train_task import train
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import labelled
from ptune.model.prompt_model import PromptModel, Task
from ptune.prompts.encoders import Baked
from ptune.storage import prompt_folder
from ptune.storage.prompt_folder import load
from ptune.tasks.judging import baselines, judge_labels
from ptune.tasks.judging.judge_labels import judge
from ptune.template.language import Template
from ptune.training import loop

pytestmark = pytest.mark.usefixtures("kept_lms")

YAML = """
name: towns
template: "{soft:2} {x} is {mask}"
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
encoder: lstm
train: {epochs: 2, batch_size: 4}
device: cpu
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LM's folder, and rows of two users and two labels."""
    path = tmp_path_factory.mktemp("world")
    two_users.write(path)
    return path


def task(world, out, text=YAML, **more):
    return two_users.read_task(world, out, text, **more)


@pytest.mark.parametrize(
    "method, key", [("p-tuning", "learning_rate"), ("fine-tune", "lm_learning_rate")]
)
def test_what_diverged_before_its_first_look_is_not_saved(world, tmp_path, method, key):
    text = (
        YAML.replace("batch_size: 4", f"batch_size: 4, clip: 0, {key}: 1.0e+30")
        + f"method: {method}\n"
    )
    text = text if method == "p-tuning" else text.replace("{soft:2} ", "")
    with pytest.raises(
        DivergedError, match=rf"training of towns diverged .* lower {key} \(it is 1e\+30\)"
    ):
        train(task(world, tmp_path / "out", text), lambda _: None)
    left = [
        path.name
        for path in tmp_path.rglob("*")
        if path.name in ("prompt.json", "run.json", "model.safetensors")
    ]
    assert not left
    finite = text.replace("1.0e+30", "1.0e-3")  # as the message says, and in the same folder
    train(task(world, tmp_path / "out", finite), lambda _: None)
    assert (tmp_path / "out" / "run.json").exists()


def test_of_many_prompts_those_that_did_not_diverge_are_saved(world, tmp_path, monkeypatch):
    real = train_task.fit_together

    def spoilt(*given, **more):
        (trained,) = real(*given, **more)
        trained[1].best, trained[1].diverged = None, True
        return [trained]

    monkeypatch.setattr(train_task, "fit_together", spoilt)
    with pytest.raises(DivergedError, match="towns/bob diverged .* All other prompts are saved."):
        train(task(world, tmp_path / "out", YAML + "prompt_by: user\n"), lambda _: None)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    saved = [json.loads(path.read_text()) for path in tmp_path.rglob("prompt.json")]
    assert (
        run["lost"] == ["towns/bob"]
        and run["diverged"] == []
        and 0 <= run["figures"]["accuracy"] <= 1
        and len(saved) == 1
    )


@pytest.mark.parametrize(
    "metrics, message",
    [
        ("f1a", "f1a is MultiRC's"),
        ("f1", "f1:a or f1:b"),
        ("recall:c", "a label that is not there"),
        ("acuracy", "Did you mean 'accuracy'"),
        ("em", "line 1 .test. has no field 'group'"),
        ("bleu", "no metric 'bleu' of labelled rows"),
    ],
)
def test_metrics_are_checked_before_anything_is_trained(
    world, tmp_path, metrics, message, monkeypatch
):
    monkeypatch.setattr("ptune.experiments.train.train_setup.LanguageModel", None)
    with pytest.raises((ConfigError, DataError), match=message):
        train(
            task(world, tmp_path / "out", YAML + f"metrics: [accuracy, {metrics}]\n"),
            lambda _: None,
        )


def test_what_was_really_used_is_recorded_and_told(world, tmp_path):
    said = []
    run = train(
        task(world, tmp_path / "a", YAML.replace("epochs: 2,", "steps: 7, patience: 0,")),
        said.append,
    )
    assert run.steps == {"towns": 7} and (
        run.train["steps"],
        run.train["epochs"],
        run.train["learning_rate"],
    ) == (7, None, 1e-3)
    run = train(
        task(
            world, tmp_path / "b", YAML.replace("epochs: 2,", "epochs: 2, steps: 70, patience: 0,")
        ),
        said.append,
    )
    assert (
        run.steps == {"towns": 6}
        and "towns had 6 steps at most, and not the 70 that are asked for, since epochs is 2."
        in said
    )
    run = train(
        task(
            world,
            tmp_path / "c",
            YAML.replace("epochs: 2,", "epochs: 90, patience: 1, learning_rate: 0.1,"),
        ),
        said.append,
    )
    assert run.steps["towns"] < 270 and any(
        f"stopped by patience at step {run.steps['towns']} of 270" in line for line in said
    )


def test_metrics_of_labels_are_those_of_the_answers(world, tmp_path):
    names = [
        "accuracy",
        "f1:b",
        "precision:b",
        "recall:b",
        "f1-macro",
        "f1-weighted",
        "mcc",
        "auc",
        "auc:a",
    ]
    out = tmp_path / "out"
    run = train(task(world, out, YAML + f"metrics: {json.dumps(names)}\n"), lambda _: None)
    rows = [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]
    answers = load(out, device="cpu").predict(rows)
    shares = [[answer["scores"][label] for label in "ab"] for answer in answers]
    wanted = labelled(
        names, rows, [answer["prediction"] for answer in answers], labels=("a", "b"), shares=shares
    )
    assert list(run.figures) == names and run.figures == pytest.approx(wanted)


def test_truths_of_json_are_judged_as_labels(world, tmp_path):
    """In training, beside baselines, and where the saved prompt is evaluated."""
    labels = YAML.replace("{a: great, b: bad}", "{true: great, false: bad}")
    text = labels + "metrics: [accuracy, mcc, auc]\n"
    runs = []
    for name, truths in (("texts", ("true", "false")), ("truths", (True, False))):
        rows = [{"x": f"{town} film", "label": truths[n % 2]} for n, town in enumerate(TOWNS)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = tmp_path / name
        run = train(task(world, out, text.replace("rows.jsonl", str(file))), lambda _: None)
        assert judge(load(out, device="cpu"), rows, list(run.figures)) == run.figures
        runs.append((run.figures, run.baselines, run.confusion))
    assert runs[0] == runs[1]


# Everything is checked before the first step.


@pytest.fixture
def no_step(monkeypatch):
    """A training that begins is a fault."""

    def step(*arguments):
        raise AssertionError("it began to train")

    monkeypatch.setattr(loop, "take_step", step)


def with_rows(world, tmp_path, rows):
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return YAML.replace("test: rows.jsonl", f"test: {tmp_path / 'test.jsonl'}")


GOOD = {"x": "Rome film", "label": "a", "user": "anna"}


@pytest.mark.parametrize(
    "rows, more, message",
    [
        (
            [GOOD],
            "prompt_by: user\ncombine: weighted\n",
            "combine: weighted says how the members of an ensemble",
        ),
        ([GOOD], "prompt_by: user\ncombine: vote\n", "with prompt_by one prompt answers each row"),
        ([GOOD], "metrics: [acuracy]\n", "no metric 'acuracy'"),
        ([GOOD], "parts: user\n", "parts gives the figures of written answers"),
        ([GOOD], "metrics: [em]\n", "line 1 .test. has no field 'group'"),
        ([GOOD, {"label": "a"}], "", "'x'"),
        ([GOOD, {"x": "Rome"}], "", "'label'"),
        ([GOOD, {"x": "Rome", "label": "c"}], "", "'c'"),
        ([GOOD], "loss: vocabulary\nreading: {by: soft}\n", "neither a reader nor swap"),
    ],
)
def test_what_does_not_fit_is_found_before_the_first_step(
    world, tmp_path, no_step, rows, more, message
):
    with pytest.raises(PtuneError, match=message):
        train(
            task(world, tmp_path / "out", with_rows(world, tmp_path, rows) + more), lambda _: None
        )


def test_weights_want_dev_rows(world, tmp_path):
    text = (
        YAML.replace("dev: rows.jsonl, ", "").replace("{soft:2} ", "")
        + "method: manual\ncombine: weighted\n"
    )
    with pytest.raises(ConfigError, match="accuracy on dev rows: give data.dev"):
        train(task(world, tmp_path / "out", text), lambda _: None)


def test_weights_of_labels_want_a_training(world, tmp_path):
    text = (
        YAML.replace("{soft:2} ", "").replace("batch_size: 4", "class_weights: balanced")
        + "method: manual\n"
    )
    with pytest.raises(ConfigError, match="manual trains nothing: leave it out"):
        train(task(world, tmp_path / "out", text), lambda _: None)


def test_one_step_of_a_copy_is_tried_first(world, tmp_path, monkeypatch):
    """What only the end of a run would show, here its figures, is found before its first step."""

    def broken(*arguments, **options):
        raise ConfigError("no figures today")

    steps = []
    step = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *arguments: steps.append(1) or step(*arguments))
    with monkeypatch.context() as patch:
        patch.setattr(judge_labels, "judge", broken)
        with pytest.raises(ConfigError, match="^no figures today$"):
            train(task(world, tmp_path / "out"), lambda _: None)
    assert len(steps) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["p-tuning", "fine-tune", "prompt-tuning"])
def test_the_trial_changes_nothing(world, tmp_path, monkeypatch, method):
    text = (
        YAML if method != "fine-tune" else YAML.replace("{soft:2} ", "")
    ) + f"method: {method}\n"
    tried = train(task(world, tmp_path / "tried", text), lambda _: None)
    monkeypatch.setattr(train_checks, "rehearse", lambda *arguments, **options: None)
    plain = train(task(world, tmp_path / "plain", text), lambda _: None)
    assert tried.history == plain.history and tried.figures == plain.figures
    tensors = [(tmp_path / name / "prompt.safetensors").read_bytes() for name in ("tried", "plain")]
    assert tensors[0] == tensors[1]


def test_what_was_trained_is_saved_before_it_is_scored(world, tmp_path, monkeypatch):
    def broken(*arguments):
        raise DataError("the disk with the rows is gone.")

    monkeypatch.setattr(train_results, "score_test_rows", broken)
    with pytest.raises(
        DataError, match="is gone. What was trained is saved in .*out; ptune evaluate scores it"
    ):
        train(task(world, tmp_path / "out"), lambda _: None)
    assert prompt_folder.load(tmp_path / "out", device="cpu").predict([GOOD])


@pytest.mark.parametrize("long, warned", [(1, False), (4, True)])
def test_shortened_rows_are_told(world, tmp_path, long, warned):
    rows = [GOOD | {"x": "film " * 60 if number < long else "film"} for number in range(12)]
    text = with_rows(world, tmp_path, rows).replace("{x}", "{x|shorten}") + "max_length: 20\n"
    heard = []
    train(task(world, tmp_path / "out", text), heard.append)
    lines = [line for line in heard if "were shortened" in line]
    assert (
        lines
        == [line for line in lines if f"{long} of 12 test rows were shortened to fit, by " in line]
        and len(lines) == 1
    )
    assert ("Warning" in lines[0] and "may have 20 tokens here (max_length)" in lines[0]) == warned


def test_pet_is_tried_before_its_folder_is_claimed(world, tmp_path):
    """The classifier, which is trained last, has an auxiliary loss, and the LM is no masked one."""
    for part in tiny.tiny("gpt2"):
        part.save_pretrained(tmp_path / "causal")
    text = YAML.replace("{soft:2} {x} is {mask}", "{x} is {mask}").replace(
        "data: {", "data: {unlabeled: rows.jsonl, "
    )
    text += "method: pet\npet: {distil: {steps: 1, auxiliary: 0.1}}\n"
    faulty = task(world, tmp_path / "out", text, lm=str(tmp_path / "causal"))
    with pytest.raises(ConfigError, match="masked"):
        train(faulty, lambda _: None)
    assert not (tmp_path / "out").exists()


def test_shortened_rows_are_told_of_pet_too(world, tmp_path):
    rows = [GOOD | {"x": "film " * 60 if number < 4 else "film"} for number in range(12)]
    text = (
        with_rows(world, tmp_path, rows)
        .replace("{soft:2} {x}", "{x|shorten}")
        .replace("train: {epochs: 2", "train: {steps: 1, epochs: 1")
    )
    text = (
        text.replace("template:", "patterns:").replace('"{x', '["{x').replace('{mask}"', '{mask}"]')
    )
    text = (
        text.replace("test: ", f"unlabeled: {tmp_path / 'test.jsonl'}, test: ")
        + "method: pet\npet: {distil: {steps: 1}}\nmax_length: 20\n"
    )
    heard = []
    train(task(world, tmp_path / "out", text.replace("encoder: lstm\n", "")), heard.append)
    lines = [line.split(" were shortened")[0] for line in heard if "were shortened" in line]
    assert sorted(lines) == ["Warning: 4 of 12 test rows", "Warning: 4 of 12 unlabelled rows"]


# Going on from a prompt.


def test_training_goes_on_from_a_saved_prompt(world, tmp_path):
    """With its LM, its template and its encoder, into a folder of its own; what it begins as is
    what was saved."""
    train(task(world, tmp_path / "first"), lambda _: None)
    before = {
        path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()
    }
    text = (
        YAML.replace('template: "{soft:2} {x} is {mask}"\n', "")
        .replace("lm: ./lm\n", "")
        .replace("encoder: lstm\n", "")
    )
    still = text.replace("epochs: 2", "epochs: 1, learning_rate: 1.0e-30")
    run = train(
        task(world, tmp_path / "still", still, continue_from=tmp_path / "first"), lambda _: None
    )
    first, again = (
        prompt_folder.load(tmp_path / name, device="cpu") for name in ("first", "still")
    )
    assert again.tasks[0].task.encoder == "lstm" and torch.allclose(
        first.bank.encoders[0](), again.bank.encoders[0](), atol=1e-6
    )
    assert run.settings["lm"].endswith("lm") and run.history["towns"][0][
        "dev_loss"
    ] == pytest.approx(
        min(
            evaluation["dev_loss"]
            for evaluation in json.loads((tmp_path / "first" / "run.json").read_text())["history"][
                "towns"
            ]
        ),
        abs=1e-4,
    )
    on = train(
        task(world, tmp_path / "second", text, continue_from=tmp_path / "first"), lambda _: None
    )
    assert on.history["towns"][-1]["dev_loss"] < run.history["towns"][-1]["dev_loss"]
    assert before == {
        path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()
    }
    with pytest.raises(
        ConfigError,
        match="has the template '{soft:2} {x} is {mask}', and towns has '{soft:3} {x} is {mask}'",
    ):
        train(
            task(
                world,
                tmp_path / "third",
                YAML.replace("soft:2", "soft:3"),
                continue_from=tmp_path / "first",
            ),
            lambda _: None,
        )
    with pytest.raises(ConfigError, match="trained with an encoder 'lstm'"):
        train(
            task(
                world, tmp_path / "third", text + "encoder: mlp\n", continue_from=tmp_path / "first"
            ),
            lambda _: None,
        )


def test_training_goes_on_from_an_imported_prompt(world, tmp_path):
    """It has vectors and nothing that made them."""
    model = PromptModel(LanguageModel.load(world / "lm", device="cpu"))
    vectors = torch.randn(3, model.lm.width)
    words = Verbalizer.from_words({"a": "great", "b": "bad"})
    model.add(
        Task("imported", Template.parse("{soft:3} {x} is {mask}"), words, encoder="table"),
        encoder=Baked(vectors),
    )
    prompt_folder.save(model, tmp_path / "imported")
    text = (
        YAML.replace("{soft:2}", "{soft:3}")
        .replace("encoder: lstm\n", "")
        .replace("epochs: 2", "epochs: 1, learning_rate: 1.0e-30")
    )
    task(world, tmp_path / "out", text)
    main.main(
        [
            "train",
            str(world / "task.yaml"),
            "--from",
            str(tmp_path / "imported"),
            "--out",
            str(tmp_path / "out"),
        ]
    )
    torch.testing.assert_close(
        prompt_folder.load(tmp_path / "out", device="cpu").bank.encoders[0](), vectors
    )


def test_each_user_goes_on_from_the_one_prompt_or_from_his(world, tmp_path):
    train(task(world, tmp_path / "one"), lambda _: None)
    text = YAML.replace("epochs: 2", "epochs: 1, learning_rate: 1.0e-30") + "prompt_by: user\n"
    for source, out in (("one", "users"), ("users", "again")):
        train(task(world, tmp_path / out, text, continue_from=tmp_path / source), lambda _: None)
        vectors = [
            prompt_folder.load(folder, device="cpu").bank.encoders[0]()
            for folder in prompt_folder.folders_in(tmp_path / out)
        ]
        assert len(vectors) == 2
    one = prompt_folder.load(tmp_path / "one", device="cpu").bank.encoders[0]()
    assert all(torch.allclose(user_vectors, one, atol=1e-6) for user_vectors in vectors)


@pytest.mark.parametrize(
    "user, message",
    [(None, "train row 13: The row's user is null"), (["anna"], "row 13: The row's user is list")],
)
def test_a_row_of_nobody_has_no_prompt(world, tmp_path, user, message):
    rows = (world / "rows.jsonl").read_text() + json.dumps(GOOD | {"user": user}) + "\n"
    (tmp_path / "rows.jsonl").write_text(rows)
    text = (
        YAML.replace("train: rows.jsonl", f"train: {tmp_path / 'rows.jsonl'}") + "prompt_by: user\n"
    )
    with pytest.raises(DataError, match=message):
        train(task(world, tmp_path / "out", text), lambda _: None)


def test_nobody_is_told_who_else_has_a_prompt(world, tmp_path):
    train(task(world, tmp_path / "out", YAML + "prompt_by: user\n"), lambda _: None)
    model = prompt_folder.load(prompt_folder.folders_in(tmp_path / "out"), device="cpu")
    for user in ("ana", "None", None):
        with pytest.raises(DataError) as error:
            model.tasks_for(GOOD | {"user": user})
        assert "anna" not in str(error.value) and "bob" not in str(error.value)
    with pytest.raises(ConfigError, match="No training row has user 'ana'.$"):
        train(
            task(world, tmp_path / "out", YAML + "prompt_by: user\nonly: [ana]\n"), lambda _: None
        )


def files(folder):
    """What stands in a folder, times aside."""
    content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes()
            content[str(path.relative_to(folder))] = (
                {**json.loads(text), "seconds": 0} if path.name == "run.json" else text
            )
    return content


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda world, text: text.replace("{x} is {mask}", "{x} was {mask}"), "template"),
        (
            lambda world, text: text.replace("a: great, b: bad", "a: bad, b: great"),
            'labels.a ("great", now "bad")',
        ),
        (
            lambda world, text: text.replace("encoder: lstm", "encoder: table"),
            'encoder ("lstm", now "table")',
        ),
        (lambda world, text: text.replace("epochs: 2", "epochs: 3"), "train.epochs (2, now 3)"),
        (
            lambda world, text: text.replace("test: rows.jsonl", "test: other.jsonl"),
            "data.test (what",
        ),
        (lambda world, text: text.replace("./lm", "./other"), "lm.weights"),
    ],
)
def test_a_run_goes_on_with_the_same_alone(world, tmp_path, change, what):
    (world / "other.jsonl").write_text(
        (world / "rows.jsonl").read_text().replace('"label": "a"', '"label": "b"', 1)
    )
    for part in tiny.tiny("bert", seed=1):
        part.save_pretrained(world / "other")
    train(task(world, tmp_path / "out"), lambda _: None)
    before = files(tmp_path / "out")
    with pytest.raises(ConfigError, match=re.escape(f"begun with another {what}")):
        train(task(world, tmp_path / "out", change(world, YAML), resume=True), lambda _: None)
    assert files(tmp_path / "out") == before
    assert train(task(world, tmp_path / "out", resume=True), lambda _: None).figures


def test_what_the_run_did_not_write_is_not_touched(world, tmp_path):
    """An imported prompt, the LM that is tuned, the folder with the rows."""
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    imported = tmp_path / "imported"
    imported.mkdir()
    (imported / "prompt.json").write_text("{}")
    text = YAML.replace("{soft:2} ", "") + "method: fine-tune\n"
    for out, method in (
        (imported, YAML),
        (tmp_path, text.replace("./lm", str(tmp_path / "lm"))),
        (tmp_path / "lm", text.replace("./lm", str(tmp_path / "lm"))),
    ):
        before = files(out)
        for resume, message in (
            (False, "which this run did not write"),
            (True, "There is no run of ptune train"),
        ):
            with pytest.raises(ConfigError, match=message):
                train(task(world, out, method, resume=resume), lambda _: None)
        assert files(out) == before


def test_two_users_never_share_a_folder(world, tmp_path):
    """These two names have the same CRC-32."""
    names = ["\u9ad8\u52ae\u5947", "\u5434\u5104\u5434"]
    rows = [
        {"x": f"{town} film", "label": "ab"[number % 2], "user": user}
        for number, town in enumerate(TOWNS)
        for user in names
    ]
    (world / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(
        task(world, tmp_path / "out", YAML.replace("rows.jsonl", "users.jsonl"), prompt_by="user"),
        lambda _: None,
    )
    assert len(list((tmp_path / "out" / "prompts").iterdir())) == 2


def test_one_prompt_of_a_bank_goes_on_and_the_others_stay_in_the_run(world, tmp_path, monkeypatch):
    bank = train(task(world, tmp_path / "out", prompt_by="user"), lambda _: None)
    lines = []
    more = train(task(world, tmp_path / "out", prompt_by="user", only=("anna",)), lines.append)
    assert not any("not scored" in line for line in lines), "bob's prompt answers his rows"
    assert (
        set(more.history) == {"towns/anna", "towns/bob"} == set(more.best)
        and more.history["towns/bob"] == bank.history["towns/bob"]
    )
    assert (
        more.history["towns/anna"] != bank.history["towns/anna"]
        and more.kept_parameters == bank.kept_parameters
    )
    assert more.trained_parameters == bank.trained_parameters
    model = load([tmp_path / "out" / "prompts" / name for name in ("anna", "bob")], device="cpu")
    rows = [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]
    assert more.figures == judge(model, rows, ())
    with pytest.raises(ConfigError, match="begun with another template"):
        train(
            task(
                world,
                tmp_path / "out",
                YAML.replace("{x} is", "{x} was"),
                prompt_by="user",
                only=("anna",),
            ),
            lambda _: None,
        )
    asked, figures = [], baselines.figures

    def noted(question, *more):
        asked.append(question)
        return figures(question, *more)

    monkeypatch.setattr(baselines, "figures", noted)
    train(task(world, tmp_path / "new", prompt_by="user", only=("anna",)), lines.append)
    left_out = [line for line in lines if line.endswith("not trained here, and are not scored.")]
    of_anna = [row for row in rows if row["user"] == "anna"]
    assert left_out[0].startswith(f"{len(rows) - len(of_anna)} test rows have a user whose prompt")
    assert list(asked[0].test) == of_anna, "the baselines answer the rows that are scored"
    (tmp_path / "out" / "checkpoint.safetensors").touch()
    with pytest.raises(ConfigError, match="holds a training that was stopped before its end"):
        train(task(world, tmp_path / "out", prompt_by="user", only=("anna",)), lambda _: None)


def test_a_run_stands_beside_its_baselines_and_says_where_it_is_behind(
    world, tmp_path, monkeypatch
):
    """The linear probe sees the LM before it is tuned."""
    said, seen = [], []
    real = baselines.figures

    def watched(question, lm, *names):
        seen.append(lm.fingerprint())
        return {**real(question, lm, *names), "tf-idf": {"accuracy": 2.0}}

    monkeypatch.setattr(baselines, "figures", watched)
    run = train(task(world, tmp_path / "out", YAML + "method: p-tuning+lm\n"), said.append)
    assert seen == [LanguageModel.load(world / "lm", device="cpu").fingerprint()]
    assert list(run.baselines) == ["majority", "tf-idf", "linear-probe"] and run.baselines[
        "majority"
    ] == {"accuracy": 0.5}
    assert said[-2].startswith(
        "Baselines without prompts, on the same rows, accuracy: Majority 0.5; TF-IDF, logistic "
        "regression 2;"
    )
    assert (
        said[-1]
        == f"This run ({run.figures['accuracy']:.4g}) is behind a baseline, TF-IDF, logistic "
        "regression (2): try --method auto."
    )
    assert json.loads((tmp_path / "out" / "run.json").read_text())["baselines"] == run.baselines
    assert "without prompts, on the same rows" in (tmp_path / "out" / "report.html").read_text()


def test_the_log_of_a_run_stands_in_its_folder(world, tmp_path):
    """It is no part of what the run is: the same run goes on with another log, or none."""
    train(task(world, tmp_path / "out", log=("jsonl",)), lambda _: None)
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert {entry["training"] for entry in entries} == {"towns"}
    train(task(world, tmp_path / "out", resume=True), lambda _: None)


def test_method_auto_has_no_log(world, tmp_path):
    text = YAML.replace("encoder: lstm", "method: auto").replace("train: {epochs: 2", "#")
    with pytest.raises(ConfigError, match="towns says log: leave that out"):
        train_auto.train(task(world, tmp_path / "out", text, log=("jsonl",)), lambda _: None)


def test_the_learning_rate_that_is_found_is_as_good_as_given(world, tmp_path, monkeypatch):
    """The training at the rate that was chosen on dev is the training that was given it; a run that
    goes on does not try again."""
    monkeypatch.setattr(learning_rate, "FACTORS", (1e-3, 1.0, 1e30))
    auto_yaml, lines = YAML.replace("{epochs: 2", "{learning_rate: auto, steps: 2"), []
    train(task(world, tmp_path / "found", auto_yaml), lines.append)
    (line,) = [line for line in lines if line.startswith("Learning rate ")]
    tried = json.loads((tmp_path / "found" / "learning-rate.json").read_text())
    assert f"Learning rate {tried['rate']:g}," in line and len(tried["tried"]) == 2
    best = max(tried["tried"], key=lambda rate: (tried["tried"][rate], -float(rate)))
    assert float(best) == tried["rate"]
    given = auto_yaml.replace("auto", str(tried["rate"]))
    train(task(world, tmp_path / "given", given), lambda _: None)
    same = [(tmp_path / name / "prompt.safetensors").read_bytes() for name in ("found", "given")]
    assert same[0] == same[1]
    run = json.loads((tmp_path / "found" / "run.json").read_text())
    assert run["train"]["learning_rate"] == tried["rate"]
    monkeypatch.setattr(learning_rate, "train_copies", None)
    assert (
        learning_rate.find(None, {}, None, folder=tmp_path / "found", report=None) == tried["rate"]
    )


def test_a_rate_to_find_is_of_prompts(world, tmp_path):
    text = YAML.replace("{epochs: 2", "{learning_rate: auto, steps: 2")
    with pytest.raises(ConfigError, match="auto tries rates of a prompt, and fine-tune trains"):
        train(task(world, tmp_path / "out", text, method="fine-tune"), lambda _: None)
