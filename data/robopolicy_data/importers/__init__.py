"""Readers of other projects' datasets; each writes a dataset of ours."""
