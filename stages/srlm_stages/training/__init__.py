"""Training under torchrun: the entry (one process a pod) prepares and commits, workers (one a GPU) train.

entry       sft and train: inputs → torchrun → model files and statistics
config      what the entry tells the workers
torchrun    starts torchrun, passes its log on, finds out why it failed, leaves no process behind
launch      torchrun that dies with the entry
worker      one training process, top to bottom
encoding    rows and pairs → tokens with loss on the answers only
loading     the models that a training begins with
arguments   the trainers' settings
sharding    weights over several processes, and the types of sums
trainers    TRL's trainers with grouped batches and precomputed reference log-probabilities
reference   those log-probabilities
cpu_head    the language-model head where there is no GPU
callbacks   progress lines and the series of figures
checkpoints resume points
saving      the finished model
model_card  its README.md
"""
