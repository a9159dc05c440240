"""The kinds that the one-machine cluster has, their rules, and the controllers that belong to the API server itself.

From the bottom up: pod_spec; pods jobs plain definitions namespaces; table; garbage; bootstrap.
"""
