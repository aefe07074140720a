"""The audit of a data set: what it consists of, what is wrong with it and what to do, as JSON and as a page."""
