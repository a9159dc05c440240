"""`srlm demo`."""
