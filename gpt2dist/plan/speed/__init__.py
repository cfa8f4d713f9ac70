"""Tokens per second: the model, its fit to published runs, and probes of machines at hand."""
