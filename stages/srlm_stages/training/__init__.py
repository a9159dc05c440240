"""Training under torchrun: the entry (one process a pod) prepares and commits, workers (one a GPU) train.

config      what the entry tells the workers
entry       sft and train: inputs → torchrun → model files and statistics
torchrun    starts torchrun, passes its log on, finds out why it failed, leaves no process behind
launch      torchrun that dies with the entry
processes   dying with the parent, for launcher and workers
worker      one training process, top to bottom
sft_data    rows → tokens with loss on the answer only
dpo_data    pairs → tokens
trainers    TRL's trainers with grouped batches and precomputed reference log-probabilities
arguments   the trainers' settings
callbacks   progress lines and the series of figures
checkpoints resume points
saving      the finished model
"""
