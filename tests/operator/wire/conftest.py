"""The operator over the wire: in this process, or as a process with `make test-cluster`."""

from support.cluster.fixtures import given_cluster, h, make_harness

__all__ = ["given_cluster", "h", "make_harness"]
