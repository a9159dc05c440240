"""`SelfRewardingRun.spec`, a module a group of sections; `run` has the whole."""
