"""The tables of the benchmark of scale."""


def blocks(found):
    return [str(found)]
