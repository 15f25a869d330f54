"""A real language model on the toys' diagram: setup, measure (what is run), findings, draw."""
