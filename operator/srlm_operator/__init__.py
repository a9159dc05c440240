"""The operator: turns a SelfRewardingRun into Jobs, one reconcile at a time.

In the order of a reconcile:

    handlers       the process: Kopf's events in, keyed queue, workers      queue  resync  progress_poll  leader
                                                                            health  watch_life
    reconcile      observe → plan → apply
    observe        all reads                                                world (indexes)  views (objects → values)
    plan           the workflow, pure                                       draft  plan_preflight  plan_nodes
                                                                            plan_stage  plan_deletion  resolve  gates
      attempts     what a failure costs, when the next attempt starts       outcomes (what became of a Job)
      jobs         stage task → Job manifest, pure                        pods resources podtemplate strategic security
      status       draft → status, pure                                     conditions  progress  figures  waiting
    apply          all writes                                               client (the API boundary)

    values         what planner reads and answers       settings  names  errors  times  shards
                                                                            metrics  run_metrics
    cli            the srlm command                     estimate  results
"""
