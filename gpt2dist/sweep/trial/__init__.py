"""One trial: its values, its run, its process."""
