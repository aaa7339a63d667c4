"""Saved prompts behind HTTP: one frozen LM, rows of any prompts in one batch.

``http`` takes requests and answers them, ``engines`` runs the LM, ``bank`` holds the prompts.
"""
