"""Worker processes: `executor` and `worker_process` run in the driver, `worker` in each worker, `messages` in both."""
