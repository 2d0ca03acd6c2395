"""Jupyter widgets: they show what the floors below computed, and compute nothing."""
