"""Where the data and the real LMs are, the order of the tests, and a limit on threads so that
figures repeat."""

import gc
import os
import pathlib

import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure
from tried_lms import TriedLMs

from ptune.lm.language_model import LanguageModel

pytest.register_assert_rewrite("prefix_family_checks", "writing_checks")
settings.register_profile("thorough", max_examples=500)
torch.set_num_threads(1)  # the tests run beside each other instead
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = pathlib.Path(__file__).parents[1]
ABOUT_TRIALS = (
    *("test_language_model.py", "test_capabilities.py", "test_limits_by_files.py"),
    *("test_onednn_linear.py", "test_quantised.py", "test_loaded_elsewhere.py"),
    *("test_packing.py", "test_text_cache.py", "test_short_attention.py"),
)
LONGEST = ("test_ranks.py", "test_docs.py", "test_style.py", "test_fuzz.py", "test_scripts.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests come first, so that no process is left with one at the
    end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """What was imported stays, and the garbage collector need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """The folder of real data sets: PTUNE_DATA, by default ../shared/data."""
    path = pathlib.Path(os.environ.get("PTUNE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data at {path}; set PTUNE_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def minilm_mlm() -> pathlib.Path:
    """A real masked LM: PTUNE_MODELS/minilm-mlm, by default under ../shared/models."""
    path = (
        pathlib.Path(os.environ.get("PTUNE_MODELS", ROOT.parent / "shared" / "models"))
        / "minilm-mlm"
    )
    if not path.is_dir():
        pytest.skip(f"no LM at {path}; set PTUNE_MODELS to the folder that holds minilm-mlm")
    return path


@pytest.fixture(autouse=True)
def no_drawings(request, monkeypatch):
    """Plots are drawn in tests/reports alone; elsewhere an empty drawing stands in, since a page
    takes longer to draw than a tiny LM to train."""
    if (ROOT / "tests" / "reports") not in request.path.parents:
        monkeypatch.setattr(Figure, "savefig", lambda self, to, **more: to.write("<svg></svg>"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A file survives a kill without it, and no test takes the machine's power away."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True)
def one_thread():
    """A test that sets the number of threads, as benchmarks do, sets it for itself alone."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tried():
    """What the LMs of all tests can do."""
    with pytest.MonkeyPatch.context() as patch:
        lms = TriedLMs()
        lms.enter(patch)
        yield lms


@pytest.fixture(scope="module", autouse=True)
def lms_are_tried_once(request, tried):
    """But where the trials are the subject, each anew."""
    tried.is_asked = request.path.name not in ABOUT_TRIALS


@pytest.fixture(scope="module")
def kept():
    """LMs by their folders."""
    return {}


@pytest.fixture
def kept_lms(kept, monkeypatch):
    """A frozen LM of a folder is loaded once, however many commands of a file's tests take it."""
    load = LanguageModel.load.__func__

    def load_or_reuse(cls, source, *values, tuned=False, **options):
        folder = pathlib.Path(source)
        if tuned or not folder.is_dir():
            return load(cls, source, *values, tuned=tuned, **options)
        files = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
        state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
        key = (folder.resolve(), str(state), values, str(options))
        if key not in kept:
            kept[key] = load(cls, source, *values, **options)
        return kept[key]

    monkeypatch.setattr(LanguageModel, "load", classmethod(load_or_reuse))
