"""One module a verb that is no stage."""
