"""Scripts of the repository as modules."""

import importlib.util
import pathlib

FOLDER = pathlib.Path(__file__).parents[1] / "scripts"


def load_script(name):
    """A script, named without its ending."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
