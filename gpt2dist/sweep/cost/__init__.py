"""Dollars and machine-hours of a sweep, before and while it runs."""
