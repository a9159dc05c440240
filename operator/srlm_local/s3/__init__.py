"""The S3 server of the one-machine cluster: moto's, with values on disk, state that survives, and accounts.

moto keeps every value in memory, reads all of it for a ranged GET, forgets everything when it stops and
does not look at digests. This package adds that and nothing else: what S3 operations do and answer is moto's.
"""
