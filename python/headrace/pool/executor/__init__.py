"""The executors, which run the tasks of a pool, and the protocols between an executor and the pool."""
