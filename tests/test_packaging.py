"""What is installed: the wheel's files, and that each dependency is one that the package
imports."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ptune"
MODULES = {
    "huggingface-hub": "huggingface_hub",
    "charset-normalizer": "charset_normalizer",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "rouge-score": "rouge_score",
    "prometheus-client": "prometheus_client",
}
# runs in an environment of its own, where ptune is not
CONNECTOR = SOURCE / "serving" / "vllm" / "ptune_connector.py"
# what an extra brings; who uses it says what to install where it is lacking
OPTIONAL = {
    "meteor": {"nltk"},
    "serve": {"fastapi", "uvicorn", "prometheus_client"},
    "data": {"datasets", "pyarrow", "fsspec"},
    "chinese": {"jieba"},
    "ray": {"ray"},
    "search": {"optuna"},
    "lora": {"peft"},
}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported() -> set[str]:
    """The other packages that the source imports anywhere, the benchmarks of the repository
    aside."""
    packages = set()
    for path in set(SOURCE.rglob("*.py")) - {CONNECTOR}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                packages |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                packages.add(node.module.split(".")[0])
    return packages - set(sys.stdlib_module_names) - {"ptune"}


def test_the_connector_imports_what_vllms_environment_has():
    tree = ast.parse(CONNECTOR.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside == {"torch", "safetensors", "vllm"}


def modules(requirements) -> set[str]:
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    return {MODULES.get(name, name) for name in names}


def test_the_core_needs_what_it_imports_and_nothing_else():
    core = modules(project()["dependencies"])
    assert imported() - core == set().union(*OPTIONAL.values()), "imported and not declared"
    assert core - imported() == set(), "declared and not imported"
    for extra, packages in OPTIONAL.items():
        assert modules(project()["optional-dependencies"][extra]) == packages


def test_hashes_are_of_the_pinned_versions():
    """``scripts/make_hashes.py`` writes them; pip refuses a file whose hash is another."""
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    lines = re.findall(
        r"(?m)^([\w.-]+)==([\w.]+)(?:\+cpu)? --hash=sha256:[0-9a-f]{64}$",
        (ROOT / "constraints-hashes.txt").read_text(),
    )
    hashed = {re.sub(r"[._-]", "-", name).lower(): version for name, version in lines}
    versions = {re.sub(r"[._-]", "-", name).lower(): version for name, version in pinned.items()}
    unpinned = {"setuptools"}  # torch asks for it
    assert {name: versions.get(name) for name in hashed if name not in unpinned} == {
        name: version for name, version in hashed.items() if name not in unpinned
    }
    needed = {re.match(r"[\w-]+", line)[0].lower() for line in project()["dependencies"]}
    assert needed <= hashed.keys()


def test_without_nltk_meteor_alone_is_lacking():
    code = (
        "import sys; sys.modules['nltk'] = None\n"
        "from ptune.metrics.texts import unavailable\n"
        "lacking = unavailable(['meteor', 'nist', 'cider'])\n"
        "assert list(lacking) == ['meteor'] and \"pip install 'ptune[meteor]'\" in "
        "lacking['meteor'], lacking"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_wheel_holds(tmp_path):
    wheel = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling builds the wheel: pip install hatchling"
    )
    built = next(
        wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    )
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        entry = archive.read(
            next(name for name in names if name.endswith("entry_points.txt"))
        ).decode()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("ptune/")} == sources
    assert {
        "ptune/builtin/lm/model.safetensors",
        "ptune/builtin/causal-lm/model.safetensors",
        "ptune/builtin/facts/relations.jsonl",
        "ptune/tasks/named/trec.yaml",
    } < sources
    assert {name.split("/")[0] for name in names} == {
        "ptune",
        next(name for name in names if name.endswith("METADATA")).split("/")[0],
    }
    assert "ptune = ptune.__main__:run" in entry and "Requires-Dist: torch>=" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names) and any(
        name.endswith("licenses/NOTICE") for name in names
    )
