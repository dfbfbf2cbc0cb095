"""Models, and their training by a recipe that is data."""
