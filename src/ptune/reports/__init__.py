"""Typed results, and the pages and tables that show them. A page reads results and nothing else."""
