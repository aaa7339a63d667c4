"""Prompts on disk: ptune's own folders, and PEFT's and Google's forms."""
