"""What is odd about a training's rows stands in its results and on its page."""

import json

from ptune.experiments.train.train_task import train
from ptune.tasks import yaml_task


def test_the_rows_findings_stand_in_results_and_page(tmp_path):
    rows = [("a great film", "good"), ("a bad city", "bad"), ("the best city", "good")]
    lines = "".join(f"{text},{label}\n" for text, label in rows)
    (tmp_path / "train.csv").write_text("text,label\n" + lines)
    (tmp_path / "test.csv").write_text(f"text,label\nA  GREAT film,bad\n{lines}NaN,bad\n")
    (tmp_path / "t.yaml").write_text(
        "name: t\nlm: builtin\nmethod: manual\ntemplate: '{text} {mask}'\n"
        "labels: {good: good, bad: bad}\ndata: {train: train.csv, dev: train.csv, test: test.csv}\n"
    )
    said = []
    config = yaml_task.read(tmp_path / "t.yaml").model_copy(
        update={"out": tmp_path / "run", "device": "cpu"}
    )
    train(config, said.append)
    leaks = [line for line in said if line.startswith("Leakage: test has 4 rows with a text that")]
    leak = leaks[0]
    assert "that train has too (" in leak and "line 2 has that of line 2" in leak
    saved = json.loads((tmp_path / "run" / "run.json").read_text())["data_findings"]
    assert leak in saved and any("1 stand there under several labels" in line for line in saved)
    (missing,) = [line for line in said if "may stand for a missing text" in line]
    assert missing.startswith("test: of 5 texts 1 are nan, null") and missing.endswith("(line 6).")
    assert any("labels with fewer than 3 rows: 'good' (2), 'bad' (1)" in line for line in saved)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>The rows</h2>" in page and leak in page
