"""The operator: turns a SelfRewardingRun into Jobs, one reconcile at a time."""
