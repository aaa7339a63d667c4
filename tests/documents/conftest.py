"""What the tests of documents read."""

import json

import pytest
import tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny causal LM, three documents and questions."""
    path = tmp_path_factory.mktemp("world")
    for part in tiny.tiny("gpt2"):
        part.save_pretrained(path / "lm")
    (path / "pages").mkdir()
    (path / "pages" / "austria.txt").write_text(tiny.TEXT[0])
    (path / "pages" / "danube.md").write_text(f"# Danube\n\n{tiny.TEXT[1][:60]}")
    (path / "pages" / "berlin.html").write_text(f"<h1>Berlin</h1><p>{tiny.TEXT[2][:60]}</p>")
    questions = [
        {"document": "austria", "question": "the capital ?", "answer": "Vienna"},
        {"document": "danube", "question": "the river ?", "answer": "Danube"},
        {"document": "berlin", "question": "a city ?", "answer": "Berlin"},
    ]
    (path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return path
