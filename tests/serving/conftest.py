"""Prompts on disk, once for all tests of the server."""

import pytest
import serving_kit


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    serving_kit.save_prompts(folder)
    return folder
