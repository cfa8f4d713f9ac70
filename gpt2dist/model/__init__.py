"""GPT-2, its loss, its optimizer groups and its schedule. Knows nothing of parallelism."""
