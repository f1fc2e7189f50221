"""The command `headrace`.

- `start`: the entry point; `main`: the command line itself.
- `signals`: the signals that ask the process to stop.
- `map`: the job behind `headrace map`: one function, every record of an input, under a limit.
- `arguments`: what the values of options may look like.
- `groups`: records in groups, each under a limit of its own.
- `target`: finding the function that `MODULE:FUNCTION` names.
- `records`: reading records lazily.
- `call`: a record on its way through the function; `caller`: the task that a pool makes of it.
- `terms`: what records are called under.
- `window`: a bound on what is under way.
- `failure`: what is said of an error, and the file of errors.
- `output`: writing lines without ever leaving half a file; `replacement`: the temporary file that they go to.
- `progress`: what is shown meanwhile.
- `report`: the page about a run.
- `complaint`: the one line that bad input gets.
"""
