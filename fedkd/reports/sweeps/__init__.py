"""Several runs of one configuration: a row for each combination of values, over its seeds."""
