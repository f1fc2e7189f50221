"""The same programs with headrace and with its peers. `count.py` counts them for the table of `docs/map.md`."""
