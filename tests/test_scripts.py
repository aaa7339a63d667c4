"""The scripts that make the built-in facts and sentences."""

import filecmp
import importlib.util
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_the_shipped_facts_are_what_the_script_makes(data, tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_facts.py", data / "factbook", tmp_path],
        check=True,
        capture_output=True,
    )
    shipped = ROOT / "src" / "ptune" / "builtin" / "facts"
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.jsonl"))
    assert len(files) > 40 and files == sorted(
        p.relative_to(shipped) for p in shipped.rglob("*.jsonl")
    )
    assert filecmp.cmpfiles(tmp_path, shipped, files, shallow=False)[0] == files


def test_no_manual_prompt_is_a_wording_of_the_pretraining_sentences():
    spec = importlib.util.spec_from_file_location(
        "make_sentences", ROOT / "scripts" / "make_sentences.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = (
        (ROOT / "src" / "ptune" / "builtin" / "facts" / "relations.jsonl").read_text().splitlines()
    )

    def plain(text):
        return "".join(c for c in text.lower() if c.isalnum() or c in "[]")

    for relation in map(json.loads, lines):
        read = {plain(w) for w in module.WORDINGS[relation["relation"]]}
        assert len(read) >= 6
        assert not read & {plain(w) for w in relation["wordings"]}


def test_the_answers_to_the_factbook_questions_stand_in_their_pages(data, tmp_path):
    from ptune.documents import read_documents

    subprocess.run(
        [sys.executable, ROOT / "scripts" / "factbook_pages.py", data / "factbook", tmp_path],
        check=True,
    )
    pages = {one.name: one.text for one in read_documents.read([tmp_path / "pages"])}
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert len(pages) == 8 and len(rows) > 60
    assert all(" ".join(row["answer"].split()) in pages[row["document"]] for row in rows)
