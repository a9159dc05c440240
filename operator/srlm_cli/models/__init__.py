"""`srlm model`, `srlm chat`, `srlm push`: finished models, out of the store of a run."""
