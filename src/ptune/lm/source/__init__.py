"""Where an LM comes from: folders, files and the hub, and what their files may ask for."""
