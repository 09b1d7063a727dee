"""Transfer: the ladder of strategies and the verdict."""
