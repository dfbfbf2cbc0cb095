"""How a classifier is made and trained: the models, the recipe, the sampling of groups, and the loop."""
