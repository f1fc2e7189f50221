"""The programs with aiometer, which has no retries: those are tenacity's."""

import asyncio
from functools import partial

import aiometer
import tenacity
from tqdm import tqdm

from front.job import broken, fetch, flaky, pages, show


def first():
    patient = tenacity.retry(stop=tenacity.stop_after_attempt(3))(flaky)
    calls = [partial(patient, page) for page in pages]
    return asyncio.run(aiometer.run_all(calls, max_at_once=20))


def rate_limit():
    calls = [partial(fetch, page) for page in pages]
    return asyncio.run(aiometer.run_all(calls, max_at_once=20, max_per_second=100))


def retry():
    patient = tenacity.retry(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_random_exponential(0.01),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )(flaky)
    calls = [partial(patient, page) for page in pages]
    return asyncio.run(aiometer.run_all(calls, max_at_once=20))


def progress():
    with tqdm(total=len(pages)) as bar:

        async def counted(page):
            text = await fetch(page)
            bar.update()
            return text

        calls = [partial(counted, page) for page in pages]
        return asyncio.run(aiometer.run_all(calls, max_at_once=20))


def streaming():
    async def main():
        async with aiometer.amap(fetch, pages, max_at_once=20) as texts:
            async for text in texts:
                show(text)

    asyncio.run(main())


def errors_returned():
    async def safe(page):
        try:
            return await broken(page)
        except Exception as error:
            return error

    calls = [partial(safe, page) for page in pages]
    return asyncio.run(aiometer.run_all(calls, max_at_once=20))
