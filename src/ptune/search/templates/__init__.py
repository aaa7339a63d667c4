"""Whole templates: mined from a corpus, listed as paraphrases, and ensembles of them. It imports
``search/common`` and what stands below ``search``."""
