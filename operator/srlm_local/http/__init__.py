"""The Kubernetes API over HTTPS. A request goes: routing, access, then read, watch, write or subresources, answer.

From the bottom up: routing answer protobuf certificates; access columns; tables discovery; read write watch
subresources; server.
"""
