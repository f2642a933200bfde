"""The model: bundle, verification, session, golden replay."""
