"""Artifacts: how they lie in the object store, who writes them, how they are read and removed."""
