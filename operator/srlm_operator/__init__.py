"""The operator: turns a SelfRewardingRun into Jobs, one reconcile at a time.

In the order of a reconcile:

    process        one operator process: leader, health, events in, keyed queue, workers
    watches        Kopf's events of runs, Jobs and pods; the only file that imports it
    reconcile      observe → plan → apply
    cluster/       reads and writes: `observe` (all reads), `apply` (all writes), client, index, queue, leader
    plan/          decides: `plan(run, observed, now, settings) -> Plan`, pure; `walk` over the stage graph, `stage` one
                   of its nodes, `attempts` and `outcomes` of Jobs, `status` what is written down
    jobs/          renders: a stage's task becomes a Job manifest, pure

    metrics/       Prometheus metrics and probes
    crd/           the definition of runs, and its checks without an API server
    values         what the planner reads and answers
    settings  names  errors  times
"""
