"""The generalised map of an edition: patches below a minimum mapping unit belong to their neighbours.

It lies in the edition's folder `generalised/`, with a manifest of its own, since the edition is sealed before.
"""
