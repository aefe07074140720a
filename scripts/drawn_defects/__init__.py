"""Drawn photos of building defects, with reports by a written rule: for the demo, for tests, for the tiny base.

`catalogue` holds the kinds and the rule, `marks`, `things` and `rooms` how all looks, `photos` puts a photo together,
`table` writes many with their CSV, `captions` describes them in generic words.
"""
