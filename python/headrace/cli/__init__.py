"""The command `headrace`.

| module | contents |
|---|---|
| `start` | entry point: installs the signal handlers, then imports and runs `main` |
| `main`, `arguments` | command line: parser, checks, option values |
| `signals` | SIGINT, SIGTERM and SIGHUP in each phase of the process |
| `load_function` | the function named by `MODULE:FUNCTION` |
| `map` | `headrace map`: one function, every record, under a limit |
| `groups`, `inflight` | records in groups with their own limits; a bound on records in flight |
| `records`, `record`, `record_batches`, `lines`, `json_array`, `columnar` | lazy reading of records, in each format |
| `file_format`, `compression`, `optional` | formats by suffix, and the packages that they need |
| `record_task`, `record_runner`, `record_pool`, `record_error`, `failures` | a record, its task, the pool, its error, all errors |
| `run_options` | limits, cost and retry options |
| `output`, `replacement`, `conversion`, `leftovers` | files that appear whole or not at all, in each format |
| `progress`, `stderr` | progress display and messages |
| `report` | HTML page about a run |
| `errors` | errors that end the command with exit code 2 |
"""
