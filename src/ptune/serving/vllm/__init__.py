"""Texts that a vLLM server writes, in an environment of its own."""
