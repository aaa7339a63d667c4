"""How a prefix enters an LM: through its attention, or through the inputs of its layers."""
