"""The public names, and which file may import which."""

import ast
import importlib.metadata
import pathlib
import re
from collections.abc import Iterator

import pytest

import ptune
from ptune.training.methods import METHODS

ROOT = pathlib.Path(__file__).parents[1]
# The packages of ptune from the ground up: each imports what stands below it alone.
FLOORS = [
    ["errors"],
    ["settings", "writing_systems"],
    ["base"],
    ["data", "metrics", "prompts", "template"],
    ["reports", "survey"],
    ["lm"],
    ["answers"],
    ["model"],
    ["runs"],
    ["pretraining", "storage", "training"],
    ["tasks"],
    ["search", "selection"],
    ["documents", "estimators", "experiments", "serving"],
    ["cli"],
]


def test_every_public_name_is_there():
    assert sorted(ptune.__all__) == sorted(ptune._HOMES)
    for name in ptune.__all__:
        assert getattr(ptune, name).__doc__
    with pytest.raises(AttributeError):
        _ = ptune.nothing


def test_imports_run_one_way():
    """What stands on a floor imports from lower floors and from its own package alone."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    source = ROOT / "src" / "ptune"
    for path in source.rglob("*.py"):
        package = path.relative_to(source).parts[0].removesuffix(".py")
        if package in ("__init__", "__main__"):
            continue
        for imported in packages_imported(path):
            assert imported == package or floor[imported] < floor[package], (
                f"{path.relative_to(source)} imports from {imported}, which does not stand below it"
            )


def test_the_table_of_the_documents_is_that_of_the_floors():
    """docs/architecture.md lists the packages from the top down."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*?`) \|", page.partition("## Floors")[2], re.M)
    listed = [re.findall("`(.*?)`", cell) for cell in table]
    listed = listed[: listed.index(["settings", "errors"]) + 1]
    height = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert sorted(sum(listed, [])) == sorted(height)
    heights = [height[name] for names in listed for name in names]
    assert heights == sorted(heights, reverse=True)


def test_the_documents_list_every_file_that_names_a_method():
    """Names that are words of something else too ("head", "manual") are passed over."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("### A new prompt method")[2].partition("\n### ")[0]
    source = ROOT / "src" / "ptune"
    names = set(METHODS) - {"head", "manual", "fine-tune"}
    naming = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert len(naming) > 15
    assert not [path for path in sorted(naming) if path.rpartition("/")[2] not in section]


def packages_imported(path: pathlib.Path) -> set[str]:
    """The packages of ptune that a file imports from, anywhere in it."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ptune":
            packages |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ptune."):
            packages.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            packages |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ptune.")}
    return packages


def test_what_needs_no_torch_loads_none():
    """The lower floors, the template language among them, and the command line's options."""
    for package in ("errors", "settings", "data", "template", "survey"):
        files = source_files(package)
        assert files and not any("import torch" in file.read_text() for file in files)


AT_THE_DOOR = (
    "tasks/schema.py",  # what a YAML file may say
    "tasks/yaml_task.py",  # is read
    "tasks/yaml_faults.py",
    "tasks/resolved/resolve.py",  # and resolved
    "tasks/resolved/refusals.py",
    "tasks/resolved/unread.py",
    "cli/train.py",
)
TOP = {
    "experiments/train/train_task.py": ["train", "assist", "_resolved"],
    "experiments/train/train_auto.py": ["train"],
    "experiments/estimate/estimate.py": ["estimate"],
    "estimators/classifier.py": ["_config"],  # which returns one
}


def test_a_tasks_whole_configuration_stays_at_the_door():
    """Behind it, functions and classes take the parts that they need."""
    source, whole = ROOT / "src" / "ptune", {}
    for path in source.rglob("*.py"):
        name = str(path.relative_to(source))
        takers = [one for one, types in annotations_in(path) if "TaskConfig" in types]
        if takers and name not in AT_THE_DOOR:
            whole[name] = takers
    assert whole == TOP


DOORS = {
    "AskConfig": "documents/ask.py",
    "CheckConfig": "experiments/check/check.py",
    "CompareConfig": "experiments/compare/compare.py",
    "DistilConfig": "documents/train_documents.py",
    "DoctorConfig": "cli/doctor.py",
    "EvaluateConfig": "experiments/answering/evaluate.py",
    "ExportConfig": "storage/convert.py",
    "GenerateConfig": "experiments/answering/generate.py",
    "ImportConfig": "storage/convert.py",
    "InspectConfig": "cli/inspect.py",
    "NewConfig": "tasks/new_task.py",
    "PredictConfig": "experiments/answering/predict.py",
    "PretrainConfig": "pretraining/loop.py",
    "ProbeConfig": "experiments/probe/probe.py",
    "PullConfig": "storage/hub/pull.py",
    "PushConfig": "storage/hub/push.py",
    "ReportConfig": "experiments/report_runs.py",
    "SearchConfig": "search/run_search.py",
    "ServeConfig": "serving/run_server.py",
    "SweepConfig": "experiments/sweep/sweep.py",
}
BEHIND_DOORS = {
    ("serving/server.py", "__init__"),  # PromptServer, which the options are resolved into
    ("tasks/layouts/new_words.py", "new_words"),  # ptune new itself, for CoNLL files
}


def test_a_commands_whole_options_stay_in_the_file_of_its_function():
    """Functions and classes elsewhere take the values, or the small parts, that they need."""
    source = ROOT / "src" / "ptune"
    classes = {name for path in source.rglob("options.py") for name, _ in annotations_in(path)}
    assert {name for name in classes if name.endswith("Config")} == set(DOORS)
    assert all((source / door).exists() for door in DOORS.values())
    behind = {
        (name, taker)
        for path in source.rglob("*.py")
        for name in [str(path.relative_to(source))]
        if path.name != "options.py"
        for taker, types in annotations_in(path)
        for options in re.findall(r"\w+Config\b", types)
        if DOORS.get(options, name) != name
    }
    assert behind == BEHIND_DOORS


def annotations_in(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The functions of a file with the types of what they take and return, and its classes with
    those of their fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            returned = ast.unparse(node.returns) if node.returns else ""
            yield node.name, f"{ast.unparse(node.args)} {returned}"
        elif isinstance(node, ast.ClassDef):
            fields = [line.annotation for line in node.body if isinstance(line, ast.AnnAssign)]
            yield node.name, " ".join(map(ast.unparse, fields))


def source_files(package: str) -> list[pathlib.Path]:
    folder = ROOT / "src" / "ptune" / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_a_package_holds_at_most_eight_files():
    """More than that has more than one subject, and is cut into packages."""
    for folder in {path.parent for path in (ROOT / "src" / "ptune").rglob("*.py")}:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 8, f"{folder.relative_to(ROOT)} holds {len(modules)} files"


def test_the_names_and_the_version_are_shown():
    assert set(ptune.__all__) | {"__version__"} <= set(dir(ptune))
    assert ptune.__version__ == importlib.metadata.version("ptune")
