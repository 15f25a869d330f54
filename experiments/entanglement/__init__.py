"""Gradient entanglement, simulated: setup, measure and sentiment (what is run), draw, user (your own data)."""
