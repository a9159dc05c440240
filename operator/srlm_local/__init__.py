"""The one-machine cluster: API server, controllers, pod runner and storage in one process.

    store/           objects with versions, and the API in process
    kinds/           what differs between kinds, and the API server's own controllers
    http/            the same API over HTTPS
    jobcontroller/   Jobs make pods
    podrunner/       pods become processes
    machine          all of it, with the S3 server and the operator

It has what the operator, kubectl and Helm need on one machine. What it does not have (server-side apply, quotas, Pod
Security, eviction, checks of definitions and of fields of built-in kinds) is tested on a real API server.
"""
