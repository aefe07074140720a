"""What `bench_gpu.py` measures: models, trials that fill the memory, and checks that all forms agree."""
