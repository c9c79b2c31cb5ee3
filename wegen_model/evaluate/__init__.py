"""Measures of a model folder."""
