"""Executors: where a pool's tasks run."""
