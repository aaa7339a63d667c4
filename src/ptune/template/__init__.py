"""The template language: how it is parsed, how a row becomes token ids, soft slots and answer
positions, and the tokenizer's side of it. Loads no torch."""
