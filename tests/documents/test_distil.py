"""``ptune distil`` from files to saved prompts: what it refuses, that it goes on exactly, and that
a document is a prompt like any other."""

import json
import shutil

import pytest
import tiny
import torch
from documents_kit import built, cache_of, config, lessons_of, lm_of, quiet, three_texts
from killing import killed_after

import ptune
from ptune.documents import ask, read_documents, train_documents
from ptune.documents.options import AskConfig, DistilConfig
from ptune.documents.teaching import self_study, study
from ptune.documents.train_documents import distil
from ptune.errors import ConfigError, DataError, StoreError
from ptune.reports import figure_files
from ptune.storage import prompt_folder


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, distil(config(world, out), quiet)


def state(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"OUT")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".html"
    }


def test_each_document_is_a_saved_prompt_that_answers_rows(run):
    out, results = run
    assert [result.document for result in results] == ["austria", "berlin", "danube"]
    assert all(result.steps == 4 and result.best for result in results)
    model = ptune.load(prompt_folder.folders_in(out))
    rows = [{"document": name, "question": "the capital ?"} for name in ("danube", "austria")]
    few = ptune.DecodingConfig(max_new_tokens=6)
    together = model.generate(rows, config=few)
    with pytest.raises(StoreError, match="holds documents"):
        figure_files.figure_rows([out])
    assert together == [model.generate([row], config=few)[0] for row in rows]


def test_what_is_learned_from_can_be_read(run):
    out, results = run
    texts = [json.loads(line) for line in (out / "study.jsonl").read_text().splitlines()]
    documents = {one.name: one.text for one in read_documents.saved_in(out)}
    slices = [text for text in texts if "start" in text]
    assert all(text["text"] in documents[text["document"]] for text in slices)
    assert sum(text.get("held_out", False) for text in texts) == sum(r.held_out for r in results)
    assert [text["answer"] for text in texts if "answer" in text] == ["Vienna", "Berlin", "Danube"]


def test_a_run_that_is_killed_between_two_steps_ends_as_one_that_is_not(
    world, run, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    settings = config(world, out).train.model_copy(update={"save_seconds": 0})
    with killed_after(3, monkeypatch):
        distil(config(world, out, train=settings), quiet)
    distil(config(world, out, resume=True), quiet)
    assert state(out) == state(run[0])


def test_what_the_lm_writes_is_learned_from_and_written_once(world, tmp_path, monkeypatch):
    out = tmp_path / "out"
    settings = {"documents": [world / "pages" / "austria.txt"], "study": None, "written": 4}
    with pytest.raises(ConfigError, match="takes 80 tokens, which is too little"):
        distil(config(world, out, **settings), quiet)
    monkeypatch.setattr(self_study, "ROOM", 12)
    monkeypatch.setattr(self_study, "TOKENS", 6)
    with killed_after(2, monkeypatch):  # one of them is the rehearsal's
        distil(config(world, out, **settings), quiet)
    texts = [json.loads(line) for line in (out / "study.jsonl").read_text().splitlines()]
    written = [text for text in texts if "written" in text]
    assert {"summary", "outline", "use"} >= {text["written"] for text in written} and written
    monkeypatch.setattr(self_study, "write", None)
    (result,) = distil(config(world, out, resume=True, **settings), quiet)
    assert result.written + sum(text.get("held_out", False) for text in written) == len(written)
    with pytest.raises(ValueError, match="leave nothing for slices"):
        config(world, out, written=1, study_share=0.5, written_share=0.5)


def test_a_page_that_changed_is_told_and_nothing_is_lost(world, tmp_path):
    pages, out, said = tmp_path / "pages", tmp_path / "out", []
    pages.mkdir()
    (pages / "a.txt").write_text(tiny.TEXT[0])
    settings = {"documents": [pages], "study": None}

    def report(line):
        said.append(line)
        (pages / "a.txt").write_text(tiny.TEXT[1])

    distil(config(world, out, **settings), report)
    assert any(line.startswith("a is not as it was") for line in said)
    assert (out / "prompts" / "a" / "prompt.json").exists()
    with pytest.raises(ConfigError, match="another documents.a"):
        distil(config(world, out, resume=True, **settings), quiet)
    assert (out / "prompts" / "a" / "prompt.json").exists()


def test_a_changed_document_goes_on_from_its_old_prefix_and_the_others_are_kept(
    world, run, tmp_path, monkeypatch
):
    pages, out, said, begun = tmp_path / "pages", tmp_path / "out", [], []
    shutil.copytree(world / "pages", pages)
    (pages / "danube.md").write_text(tiny.TEXT[1][:70])
    settings = {"documents": [pages], "previous": run[0]}
    with killed_after(2, monkeypatch):  # one of them is the rehearsal's
        distil(config(world, out, **settings), quiet)
    assert not (out / "prompts" / "danube").exists()

    def beginning(model, data, *rest, **named):
        begun.append(model.bank.prefixes[0]().detach().clone())
        return fit(model, data, *rest, **named)

    fit = train_documents.fit
    monkeypatch.setattr(train_documents, "fit", beginning)
    results = distil(config(world, out, resume=True, **settings), said.append)
    assert [result.document for result in results] == ["austria", "berlin", "danube"]
    for name in ("austria", "berlin"):
        assert state(out / "prompts" / name) == state(run[0] / "prompts" / name)
        assert f"{name} is as it was in {run[0]}: its prompt is kept." in said
    before, after = (
        ptune.load(folder / "prompts" / "danube").bank.prefixes[0]() for folder in (run[0], out)
    )
    assert torch.equal(begun[-1], before) and not torch.equal(before, after)
    again = tmp_path / "again"
    longer = {"length": 6, "study": None, "previous": out, "documents": [pages / "danube.md"]}
    distil(config(world, again, **longer), quiet)
    assert torch.equal(begun[-1][:4], after) and len(begun[-1]) == 6
    with pytest.raises(StoreError, match="prompt of none of these documents .a"):
        (pages / "a.txt").write_text(tiny.TEXT[0])
        longer["documents"] = [pages / "a.txt"]
        distil(config(world, tmp_path / "none", **longer), quiet)


REFUSED = {
    "empty.txt": (" \n", "is an empty document"),
    "short.txt": ("a b", "a prefix is shorter than its document"),
    "austria.md": ("Vienna", "would both be the document 'austria'"),
    "broken.json": ("{", "is not valid JSON"),
    "table.csv": ("name,words\na,b\n", "no column 'text'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_documents_are_refused_before_the_first_step(name, world, tmp_path, monkeypatch):
    monkeypatch.setattr("ptune.documents.train_documents.fit", None)
    content, message = REFUSED[name]
    (tmp_path / name).write_text(content)
    documents = [world / "pages", tmp_path / name]
    with pytest.raises(DataError, match=message):
        distil(config(world, tmp_path / "out", documents=documents), quiet)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_asked_is_refused(world, tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "bert")
    for settings, message in (
        ({"lm": str(tmp_path / "bert")}, "a masked LM"),
        ({"lm": "nowhere", "template": "{question}"}, "mask"),
        ({"lm": "nowhere", "template": "Answer: {mask}"}, "with {question}"),
        (
            {
                "documents": [world / "pages" / "austria.txt"],
                "study": None,
                "length": 28,
                "slice_tokens": 30,
            },
            "takes 80 tokens, which is too little",
        ),
        ({"lm": "nowhere", "template": "{soft:2}{question} {mask}"}, "without learned"),
    ):
        with pytest.raises(ConfigError, match=message):
            distil(config(world, tmp_path / "out", **settings), quiet)
    (tmp_path / "chinese.txt").write_text("\u7ef4\u4e5f\u7eb3\u5728\u591a\u7459\u6cb3" * 9)
    for part in tiny.tiny("llama"):
        part.save_pretrained(tmp_path / "llama")
    with pytest.raises(DataError, match="unknown to this LM's vocabulary"):
        distil(
            config(
                world,
                tmp_path / "out",
                documents=[tmp_path / "chinese.txt"],
                study=None,
                lm=str(tmp_path / "llama"),
            ),
            quiet,
        )


@pytest.mark.parametrize(
    "row, message",
    [
        ({"document": "rome", "question": "a ?", "answer": "b"}, "should name the document"),
        ({"document": "austria", "question": "a ?"}, "a question and its answer"),
        ({"document": "austria", "text": "a", "question": "b", "answer": 5}, "answer"),
    ],
)
def test_bad_study_rows_are_told_with_their_line(row, message, world, tmp_path):
    (tmp_path / "study.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"(?s)line 1.*{message}"):
        distil(config(world, tmp_path / "out", study=tmp_path / "study.jsonl"), quiet)


@pytest.mark.parametrize("start", ["first", "spaced", "attended", "random"])
def test_an_anchored_prefix_keeps_its_first_vector_alone(start, world):
    lm, settings = lm_of("llama"), config(world, "out", start=start, anchored=True)
    one = lessons_of(lm, settings)
    model, data = built(lm, settings, one)
    before = model.bank.prefixes[0]().detach().clone()
    ptune.fit(model, data, ptune.TrainConfig(learning_rate=1e-2, steps=2, evaluate_every=2))
    after = model.bank.prefixes[0]().detach()
    assert (before[0] == after[0]).all() and (before[1:] != after[1:]).any(1).all()
    ids = [*lm.tokens.before, *one.ids]
    if start in ("first", "spaced"):
        chosen = ids[:4] if start == "first" else [ids[int(n * len(ids) / 4)] for n in range(4)]
        assert (before == lm.activations(chosen)).all()


def test_a_question_is_asked_of_one_document_of_several_or_of_the_nearest(run, capsys):
    out, _ = run
    few = {"max_new_tokens": 5}
    model = ptune.load(prompt_folder.folders_in(out))
    said = []

    def asked(question, *documents):
        settings = {"folder": out, "question": question, "document": documents, "decoding": few}
        return ask.ask(AskConfig(**settings), said.append)

    decoding = ptune.DecodingConfig(max_new_tokens=5, stop=("\n",))
    row = {"document": "danube", "question": "people ?"}
    expected = model.generate([row], config=decoding)[0]
    assert asked("people ?", "danube") == expected == said[-1]
    ask.ask(
        AskConfig(folder=out, question="the euro and the Danube", as_json=True, decoding=few),
        said.append,
    )
    assert json.loads(said[-1])["documents"] == ["danube"]
    composed = asked("people ?", "danube", "austria")
    assert composed == said[-1]
    with pytest.raises(ConfigError, match="no document 'danub'.*danube"):
        asked("people ?", "danub")
    with pytest.raises(ConfigError, match="empty"):
        asked(" ", "danube")
    with pytest.raises(ConfigError, match="names 'danube' twice"):
        asked("people ?", "danube", "austria", "danube")
    with pytest.raises(ConfigError, match="too long to stand behind danube with room for 5 tokens"):
        asked("people ? " * 200, "danube")


def test_a_document_whose_prompt_was_deleted_is_not_asked_and_the_others_are(run, tmp_path):
    out, said = tmp_path / "out", []
    shutil.copytree(run[0], out)
    shutil.rmtree(out / "prompts" / "danube")
    settings = {"folder": out, "as_json": True, "decoding": {"max_new_tokens": 5}}
    ask.ask(AskConfig(question="the euro and the Danube", **settings), said.append)
    assert json.loads(said[-1])["documents"] != ["danube"]
    with pytest.raises(ConfigError, match="no document 'danube'"):
        ask.ask(AskConfig(question="people ?", document=("danube",), **settings), said.append)
    shutil.rmtree(out / "prompts")
    with pytest.raises(StoreError, match="has a prompt"):
        ask.ask(AskConfig(question="people ?", **settings), said.append)


def test_prefixes_one_after_the_other_are_all_seen_in_that_order():
    lm = lm_of("llama")
    settings = DistilConfig(documents=["a"], lm="tiny", length=3, cover=1, slice_tokens=6)
    planned = [lessons_of(lm, settings, name, text) for name, text in three_texts()]
    model, _ = built(lm, settings, *planned)
    number = ask.compose(model, [2, 0])
    (example,) = model.encode(number, [{"question": "people ?"}], labelled=False)
    output = lm.read_rows(
        example.fills, [0], prefixes=model.bank.deep([model.tasks[number].prompt])
    )
    prefix = torch.cat([model.bank.prefixes[other]() for other in (2, 0)]).detach()
    ids = example.fills[0].ids
    plain = lm.model(
        torch.tensor([ids]),
        **{lm.forward.cache_name: cache_of(lm, prefix)},
        attention_mask=torch.ones(1, len(ids) + 6, dtype=torch.long),
        position_ids=torch.arange(6, 6 + len(ids))[None],
    ).logits[0, -1]
    torch.testing.assert_close(output.scores[0], plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.bank.prefixes[model.tasks[number].prompt](), prefix)
    other = ask.compose(model, [0, 2])
    assert not torch.equal(
        model.bank.prefixes[model.tasks[other].prompt](),
        model.bank.prefixes[model.tasks[number].prompt](),
    )


def test_signs_that_are_no_markup_stay_in_a_json_file(tmp_path):
    code = "Use std::vector<int> or write <your name>; if a <b then c> d"
    (tmp_path / "a.json").write_text(json.dumps({"text": code, "type": "List<String>"}))
    (read,) = read_documents.read([tmp_path / "a.json"])
    assert read.text == f"{code}\ntype: List<String>"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<head><title>T</title><body><h1>Hours</h1><p>At nine.</body>", "# Hours\n\nAt nine."),
        ("<head><title>T</title><meta x=y><p>At nine.", "At nine."),
        ("<head><script>1</script><style>x</style></head><p>At nine.", "At nine."),
        ("<body><template><p>no</p></template><p>At nine.", "At nine."),
    ],
)
def test_the_end_tags_of_a_page_may_be_left_out(page, text):
    assert read_documents.tidy(read_documents.text_of_page(f"<!doctype html><html>{page}")) == text


def test_a_text_may_hold_any_sign_that_ends_a_line(tmp_path):
    signs = "a\u2028b\u2029c\x85d\x0be"
    study.write(tmp_path / "written.jsonl", [study.Study(document=signs, text=signs)])
    assert [one.text for one in study.read_written(tmp_path / "written.jsonl")] == [signs]
    saved = [read_documents.SavedDocument(name=signs, text=signs)]
    study.write(tmp_path / read_documents.SAVED, saved)
    assert read_documents.saved_in(tmp_path) == saved


def test_documents_of_every_form_are_read(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps(
            {"Land": {"Area": {"text": "5 <b>sq</b> km"}, "Coast": "none"}, "people": [1, 2]}
        )
    )
    (tmp_path / "b.html").write_text(
        "<html><head><title>no</title></head><body><h2>Land</h2><script>no</script>"
        "<p>flat &amp; green</p><table><tr><td>a<td>b</tr></table></body></html>"
    )
    (tmp_path / "c.csv").write_text("title,text\nrome,A city\nparis,Another city\n")
    (tmp_path / "d.md").write_text("# Land\n\n\n\nflat   and green \n")
    (tmp_path / "e.png").write_text("no")
    both = [tmp_path, tmp_path / "d.md"]  # a file that is named twice is one document
    read = {one.name: one.text for one in read_documents.read(both)}
    assert read == {
        "a": "# Land\nArea: 5 sq km\nCoast: none\npeople: 1\npeople: 2",
        "b": "## Land\n\nflat & green\n\na b",
        "rome": "A city",
        "paris": "Another city",
        "d": "# Land\n\nflat and green",
    }
    for name, content, message in (
        ("x.png", "", "is of no kind that documents are read from"),
        ("deep.json", "[" * 5000 + "]" * 5000, "JSON"),
        ("x.txt", b"\xff\xfe\xfa", "not UTF-8"),
        ("none.txt", None, "cannot be read"),
        ("a.txt.gz", b"\x1f\x8b", "unpack it first"),
        ("names.csv", "name,text\n ,a town\n", "line 2.*has no name"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
        with pytest.raises(DataError, match=message):
            read_documents.read([tmp_path / name])
