"""Prompts on the model hub: one repository for a prompt, or for a bank with a folder for each. Only
safetensors and JSON are read; of other files in a repository nothing is fetched."""
