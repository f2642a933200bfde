"""What a benchmark lets compete: forms of one model, and who runs them."""
