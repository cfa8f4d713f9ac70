"""What a sweep shows: the live table, results, picture and MLflow."""
