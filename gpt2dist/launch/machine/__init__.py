"""What runs on the rented machine, not here."""
