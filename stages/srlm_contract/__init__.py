"""What the operator and the stages promise each other.

Everything here is values and pure functions, but for the stores. No module imports a machine-learning
library, Kubernetes or boto3 when it is imported, so that the operator image stays small.
"""
