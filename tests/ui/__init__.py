"""Tests that drive a real JupyterLab, a real kernel and a real browser."""
