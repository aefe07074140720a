"""Models: loading them whole, choosing what trains, and what travels with them."""
