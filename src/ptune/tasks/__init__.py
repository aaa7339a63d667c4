"""Tasks as YAML files describe them, the data sets that come in layouts of their own, and how
answers are judged."""
