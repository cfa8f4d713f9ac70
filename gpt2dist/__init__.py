"""GPT-2 from 124M to 1.5B: plan it, launch it, train it, compare what every dollar bought."""

__version__ = "0.1.0"
