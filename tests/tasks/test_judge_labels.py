"""What is counted beside the figures of a task with labels."""

from types import SimpleNamespace

from ptune import Verbalizer
from ptune.tasks.judging import judge_labels
from ptune.tasks.judging.judge_labels import Answer
from ptune.tasks.judging.label_details import LabelDetails


def test_right_and_answered_labels_are_counted(monkeypatch):
    rows = [{"team": label} for label in ("post", "post", "money")]
    answered = ["post", "money", "money"]
    answers = [
        Answer(
            label=label,
            text=label,
            right=label == row["team"],
            members=(),
            shares=[0.5, 0.5],
            right_label=["post", "money"].index(row["team"]),
            task=0,
        )
        for label, row in zip(answered, rows)
    ]
    monkeypatch.setattr(judge_labels, "answer", lambda model, rows, shortening: answers)
    words = Verbalizer.from_words({"post": "post", "money": "money"})
    task = SimpleNamespace(target="team", verbalizer=words, multi_label=False)
    model = SimpleNamespace(tasks=[SimpleNamespace(task=task)], is_ensemble=False)
    details = LabelDetails()
    figures = judge_labels.judge(model, rows, details=details)
    assert figures == {"accuracy": 2 / 3}
    assert details.confusion == {"post": {"post": 1, "money": 1}, "money": {"post": 0, "money": 1}}
