"""Sweeps: many runs of one recipe, under one budget."""
