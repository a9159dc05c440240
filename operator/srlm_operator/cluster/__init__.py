"""Reads and writes the Kubernetes API: client, watch-fed indexes, the work queue, the Lease."""
