"""Pictures with their truth: formats, datasets that load lazily, splits."""
