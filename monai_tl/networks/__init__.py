"""Networks: an explicit table of builders, ordered layer groups, heads."""
