"""What a run records: rows, dollars, pictures, MLflow."""
