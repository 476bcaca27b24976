"""What a GPU does: measured in parts of a few minutes at most, each a program of its own (`benchmarks/gpu.sh`)."""
