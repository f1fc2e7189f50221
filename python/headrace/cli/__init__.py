"""The command `headrace`.

- `main`: the command line itself.
- `map`: the job behind `headrace map`: one function, every record of an input, under a limit.
- `target`: finding the function that `MODULE:FUNCTION` names.
- `records`: reading records lazily, writing results without ever leaving half a file.
- `progress`: what is shown meanwhile.
- `complaint`: the one line that bad input gets.
"""
