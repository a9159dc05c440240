"""The one-machine cluster: API server, controllers, pod runner and storage in one process."""
