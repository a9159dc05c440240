"""The CustomResourceDefinition, and its checks without an API server. No stage imports it."""
