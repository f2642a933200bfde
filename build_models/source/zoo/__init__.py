"""Networks in plain torch whose parameters bear the names of published weights, so that such a file loads."""
