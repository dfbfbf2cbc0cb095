"""Gradients and Hessians of each group's loss, of any model and images (sections 4.4 and 4.5)."""
