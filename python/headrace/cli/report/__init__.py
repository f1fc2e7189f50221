"""The page of `headrace map --report`: one HTML file about a run, without external resources.

| module | contents |
|---|---|
| `ddsketch` | quantiles of durations to within 1%, from at most about 1,500 counters |
| `timeline` | levels and events over time, in a fixed number of points |
| `samples` | the slowest calls, and the first failed records |
| `error_counts` | failed calls by type of error over time |
| `report` | durations, time line and samples of a run |
| `series` | definitions of the levels and rates in the time line |
| `collector` | fills a report during a run, and writes its page |
| `summary` | totals and options at the top of the page |
| `chart` | charts, as SVG inside HTML |
| `page` | the page |
| `format` | durations and numbers for humans |

The memory for a report is bounded, whatever the length of the run and the number of records.
"""
