"""What the operator tells Prometheus and probes."""
