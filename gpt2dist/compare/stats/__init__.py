"""What the records say: groups, frontier, scaling laws."""
