"""The suite. Helpers that several tests use are modules here: ``tests.tolerances``, ``tests.strategies``."""
