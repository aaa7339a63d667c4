"""Workers on a Ray cluster do a sweep's runs as one process does."""

import importlib.util

import pytest
from test_sweep import folder, swept  # noqa: F401 - the fixture

from ptune.errors import ConfigError


def test_without_ray_its_options_are_refused(folder, monkeypatch):  # noqa: F811
    with pytest.raises(ConfigError, match="name the cluster by --ray"):
        swept(folder, ray_gpus=0.5)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package ray"):
        swept(folder, ray="local")


def test_workers_of_a_cluster_do_what_one_process_does(folder):  # noqa: F811
    pytest.importorskip("ray", reason="ray is not installed")
    (alone, _), (together, lines) = swept(folder), swept(folder, "ray", ray="local", workers=2)
    figures = [[(run.name, run.dev, run.figures) for run in one.runs] for one in (alone, together)]
    assert figures[0] == figures[1]
    assert lines[0] == "2 runs, 0 of which have their results already"


def test_an_address_without_a_cluster_is_told(folder):  # noqa: F811
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(ConfigError, match="no Ray cluster at auto"):
        swept(folder, ray="auto")
