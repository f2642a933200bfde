"""The web API and its pages; needs the ``web`` extra."""
