"""Runs as records, from their folders or from MLflow."""
