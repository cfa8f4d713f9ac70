"""Rent machines with SkyPilot, run there what was planned, and stop when the money is spent."""
