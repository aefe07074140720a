"""Which seeds draw what, so that no photo is measured that was trained on. Other seeds are free."""

DEMO_SEED = 0
BASE_SEEDS = (9001, 9002)
"""The photos that the tiny base has learned from, course by course."""

MEASURED_SEED = 77
"""The photos that the learning curve is measured on."""

RESERVED_SEEDS = frozenset({*BASE_SEEDS, MEASURED_SEED})
