"""The programs with asyncio and tenacity."""

import asyncio

import tenacity
from tqdm.asyncio import tqdm

from front.job import broken, fetch, flaky, pages, show


def first():
    slots = asyncio.Semaphore(20)

    @tenacity.retry(stop=tenacity.stop_after_attempt(3))
    async def limited(page):
        async with slots:
            return await flaky(page)

    async def main():
        return await asyncio.gather(*map(limited, pages))

    return asyncio.run(main())


def rate_limit():
    slots = asyncio.Semaphore(20)

    async def limited(page):
        async with slots:
            return await fetch(page)

    async def main():
        calls = []
        for page in pages:
            calls.append(asyncio.create_task(limited(page)))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*calls)

    return asyncio.run(main())


def retry():
    slots = asyncio.Semaphore(20)

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_random_exponential(0.01),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )
    async def limited(page):
        async with slots:
            return await flaky(page)

    async def main():
        return await asyncio.gather(*map(limited, pages))

    return asyncio.run(main())


def progress():
    slots = asyncio.Semaphore(20)

    async def limited(page):
        async with slots:
            return await fetch(page)

    async def main():
        return await tqdm.gather(*map(limited, pages))

    return asyncio.run(main())


def streaming():
    slots = asyncio.Semaphore(20)

    async def limited(page):
        async with slots:
            return await fetch(page)

    async def main():
        for text in asyncio.as_completed(map(limited, pages)):
            show(await text)

    asyncio.run(main())


def errors_returned():
    slots = asyncio.Semaphore(20)

    async def limited(page):
        async with slots:
            return await broken(page)

    async def main():
        return await asyncio.gather(*map(limited, pages), return_exceptions=True)

    return asyncio.run(main())
