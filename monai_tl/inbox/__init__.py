"""New studies, each exactly once: what has arrived, the ledger of what became of it, drift, and the way to a PACS.

Knows nothing of networks: what is done with a study comes from outside.
"""
