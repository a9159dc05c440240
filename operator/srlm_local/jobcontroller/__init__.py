"""The batch/v1 Job controller, as the real one behaves: order of writes, counters, conditions, back-off.

indexes      index lists such as 0-2,4
pods         predicates on pods, and the pod that a Job makes
policies     podFailurePolicy, limits → the condition that ends a Job
backoff      when the next pod may be made
sync         one pass over one Job
controller   which Job to look at when; orphaned pods; TTL
"""
