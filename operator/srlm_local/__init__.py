"""The one-machine cluster: API server, controllers, pod runner and storage in one process.

The API server, from the bottom up:

    clock errors jsontools quantity names request     values that everything uses
    resources                                         which kinds there are
    storage journal                                   objects with versions and history; on disk
    selectors patching field_sets managed_fields      selecting, patching, server-side apply
    builtin_schemas builtin_decode strictness         fields and types of built-in kinds
    metadata strategy strategies                      what all kinds have in common, and what differs
    pods pod_defaults pod_validation pod_security     pods
    jobs job_validation                               Jobs (the controller is in jobcontroller/)
    custom crd_controller                             custom resources and their definitions
    small_kinds event_kind conversion quota           the other kinds
    reader isolation deletion cluster                 the API in process
    gc pod_gc namespaces event_expiry controllers     controllers that belong to the API server
    routing respond http_read http_watch http_write   the API over HTTP
    json_body protobuf_body subresources reviews      bodies, logs, binding, eviction, tokens, access reviews
    discovery openapi printing printing_columns       what clients ask about the API; tables
    access certificates bootstrap apiserver           RBAC, TLS, the first objects, the server itself
    faults                                            a proxy that breaks things, for tests
"""
