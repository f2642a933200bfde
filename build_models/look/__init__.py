"""Looking inside a model: its tensors on a picture, two models side by side."""
