"""What loss a run will end with: a scaling law, published runs, and the fit of own ones."""
