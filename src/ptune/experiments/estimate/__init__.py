"""The memory of a training, computed before anything is loaded: ``ptune train --estimate``."""
