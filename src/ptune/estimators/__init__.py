"""Prompts behind scikit-learn's interface, for its pipelines, searches and scores. It imports tasks
and what stands below them.
"""
