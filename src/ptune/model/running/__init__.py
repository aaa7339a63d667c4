"""The LM run for rows of any tasks: losses, label scores and written text."""
