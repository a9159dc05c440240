"""Objects with versions, and the one way to read and write them: what kinds, controllers and HTTP are built on.

From the bottom up: clock values names request errors; storage journal; resources; selectors patching metadata
isolation deletion; cluster, the API in process; events, which components write through it.
"""
