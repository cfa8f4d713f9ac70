"""A comparison as text, picture and page."""
