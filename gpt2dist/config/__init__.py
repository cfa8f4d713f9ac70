"""The one typed, frozen config: recipes, files and overrides resolved once."""
