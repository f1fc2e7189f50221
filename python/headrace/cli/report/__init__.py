"""What `headrace map --report` writes: how a run went, on one page that needs nothing beside it.

All that is collected while the run goes on is bounded, however long it goes on and however many records it has:

- `sketch`: how long calls took, to within 1%, in at most some 1,500 numbers.
- `timeline`: what was in use when, and when records ended, in a fixed number of points.
- `notable`: the slowest records, and the first that failed.
- `gauge`: a level that the time line looks at.
- `report`: durations, time line and records together.
- `watch`: fills a report while a run goes on, and writes its page.

And what is made of it at the end:

- `chart`: pictures, as SVG within HTML.
- `summary`: what stands at the top of the page.
- `page`: the page.
- `words`: durations and numbers as people read them.
"""
