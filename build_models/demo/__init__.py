"""The demo model: detector, training, evaluation."""
