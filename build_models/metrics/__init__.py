"""How good a model is: measures per task, and how sure a difference is."""
