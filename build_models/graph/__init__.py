"""Graph transforms: one a file; each takes a model and returns it with a report."""
