"""Arithmetic before rent: parameters, FLOPs, hardware. Pure functions, no heavy imports."""
