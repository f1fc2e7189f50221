"""The programs with headrace."""

import asyncio

import headrace
from front.job import broken, fetch, flaky, pages, show


def first():
    return headrace.map(flaky, pages, limit=20, retry=2)


def rate_limit():
    return headrace.map(fetch, pages, limit=20, rate="6000/m")


def retry():
    patient = headrace.Retry(retries=3, backoff=0.01, on=ConnectionError)
    return headrace.map(flaky, pages, limit=20, retry=patient)


def progress():
    return headrace.map(fetch, pages, limit=20, progress=True)


def streaming():
    async def main():
        async for text in headrace.amap(fetch, pages, limit=20, ordered=False):
            show(text)

    asyncio.run(main())


def errors_returned():
    return headrace.map(broken, pages, limit=20, errors="return")
