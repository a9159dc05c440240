"""An S3 server for one machine: objects on disk, bounded memory, conditional writes, SigV4 checks.

Written here and not taken from moto because moto keeps objects in memory only, reads a whole object
for every ranged GET, and forgets everything when it stops. The tests hold its answers against moto's.
"""
