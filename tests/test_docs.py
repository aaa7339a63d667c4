"""The pages of the documentation: what they show runs, their links lead somewhere, and the
reference is that of the code."""

import importlib.util
import io
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import tiny
from scripts_kit import load_script
from transformers import BertForMaskedLM

from ptune import TrainConfig
from ptune.cli import main
from ptune.settings import BUILTIN_LMS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"(?:<!-- ([^>]+) -->\n)?```(sh|python)\n(.*?)```", re.S)
WRITER = "HuggingFaceTB/SmolLM2-135M-Instruct"
GUIDES = (
    "README",
    "README.zh-CN",
    "start",
    "start.zh-CN",
    "classify",
    "facts",
    "sequence",
    "write",
    "documents",
    "search",
    "serving",
    "peft",
    "your-lm",
    "templates",
    "files",
)


def blocks(page):
    """The blocks of code of a page: what the comment before each tells, its language, its text."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def page(name):
    return ROOT / f"{name}.md" if name.startswith("README") else ROOT / "docs" / f"{name}.md"


RUNNING = [  # the Chinese pages have the same blocks
    name
    for name in GUIDES
    if "zh" not in name and any(kind == "runs" for kind, *_ in blocks(page(name)))
]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A small causal LM that stands in for the one of the pages."""
    folder = tmp_path_factory.mktemp("writer")
    network, tokenizer = tiny.tiny("gpt2")
    network = type(network)(
        type(network.config)(**{**network.config.to_dict(), "n_positions": 512})
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """The built-in LM without its layers but the first, which stands in for it."""
    network = BertForMaskedLM.from_pretrained(BUILTIN_LMS["builtin"], num_hidden_layers=1)
    folder = tmp_path_factory.mktemp("shallow")
    shutil.copytree(BUILTIN_LMS["builtin"], folder, dirs_exist_ok=True)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch, writer, shallow):
    """A folder with the examples, where each training takes two steps."""
    monkeypatch.setitem(BUILTIN_LMS, "builtin", shallow)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for path in (tmp_path / "examples").glob("*.yaml"):
        path.write_text(path.read_text().replace(WRITER, writer))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainConfig, "planned_steps", lambda self, steps_an_epoch: 2)
    monkeypatch.setattr("ptune.experiments.train.train_auto.MINUTES", 1e-3)
    return tmp_path


def run_commands(text, monkeypatch):
    """Run lines such as ``ptune train ...`` and ``echo '...' | ptune predict ...`` in process."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r" --minutes \d+", "", line)  # the first method alone has time
        first, *rest = shlex.split(line, comments=True) or ["#"]
        if first == "echo":
            monkeypatch.setattr("sys.stdin", io.StringIO(rest[0] + "\n"))
            assert rest[1:3] == ["|", "ptune"], line
            rest = rest[3:]
        elif first == "#":
            continue
        else:
            assert first == "ptune", line
        try:
            main.main(rest)
        except SystemExit as ended:
            assert not ended.code, line


@pytest.mark.parametrize("name", RUNNING)
def test_what_a_page_shows_runs(name, workplace, writer, monkeypatch):
    names: dict = {}
    for kind, language, text in blocks(page(name)):
        text = text.replace(WRITER, writer)
        if kind == "runs" and language == "python":
            exec(compile(text, f"{name}.md", "exec"), names)
        elif kind == "runs":
            run_commands(text, monkeypatch)


@pytest.mark.parametrize("name", GUIDES)
def test_every_block_of_a_guide_runs_or_says_what_it_needs(name):
    for kind, _, text in blocks(page(name)):
        assert (
            kind == "runs" or kind.startswith("needs ") or text.startswith("python3 -m venv .venv")
        ), text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"", text):
        target = next(filter(None, target))
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{path.name}: {target}"


def anchors(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def test_every_page_stands_in_the_index():
    listed = re.search(r".*", (ROOT / "docs" / "index.md").read_text(), re.S)[0].split()
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= set(listed)


def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("sphinx is not installed: pip install 'ptune[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_claim_of_a_paper_was_measured_and_has_one_of_three_verdicts():
    verdicts = ("holds", "holds in part", "does not hold here")
    judged, in_table = [], False
    for line in (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.sub(r"`[^`]*`", "", line).split("|")]
        in_table = line.startswith("|") and (in_table or cells[-2] == "verdict")
        if in_table and cells[-2] not in ("verdict", "---"):
            judged.append(cells[-2].partition(":")[0])
    assert len(judged) > 25 and {*judged} == {*verdicts}, judged


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if path.name not in ("figures.md", "CHANGELOG.md")],
    ids=lambda path: path.name,
)
def test_the_figures_of_a_page_stand_among_those_with_a_command(path):
    """As they are there, or rounded."""
    known = re.findall(r"(?<!\d)0?(\.\d{2,})", (ROOT / "docs/figures.md").read_text("utf-8"))
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", path.read_text("utf-8"), flags=re.S)
    for figure in set(re.findall(r"(?<![\w.])0?(\.\d{2,3})(?![\w%]|\.\d)", prose)):
        digits = len(figure) - 1
        assert any(f"{float(one):.{digits}f}"[1:] == figure for one in known), figure


def test_readme_is_short():
    assert len(page("README").read_text().splitlines()) <= 120


def test_the_picture_is_what_its_script_draws():
    drawn = load_script("draw_batch").picture()
    assert (ROOT / "docs" / "batch.svg").read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("name", ["README", "start"])
def test_the_chinese_page_has_the_same_commands(name):
    code = [
        [(language, text) for _, language, text in blocks(page(one))]
        for one in (name, f"{name}.zh-CN")
    ]
    assert code[0] == code[1]


@pytest.fixture(scope="module")
def reference():
    return load_script("make_reference").pages()


def test_the_reference_is_that_of_the_code(reference):
    for name, text in reference.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, (
            f"{name}: run python scripts/make_reference.py"
        )


def test_every_command_stands_in_the_reference(reference):
    for name in main.COMMANDS:
        assert f"## `ptune {name}`" in reference["reference-commands.md"]


def test_the_examples_fit_the_schema(reference):
    keys = json.loads(reference["task.schema.json"])["properties"]
    for path in (ROOT / "examples").glob("*.yaml"):
        used = set(re.findall(r"^(\w+):", path.read_text(), re.M))
        assert used <= set(keys), path
