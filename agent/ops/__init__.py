"""Operation: logging, device facts."""
