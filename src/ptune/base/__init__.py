"""Ground floor: files that are written whole or not at all, file names, progress, interrupts, the
terminal. Imports ``errors`` and ``settings`` alone."""
