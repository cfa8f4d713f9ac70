"""Shards to training and validation windows, from any step on."""
