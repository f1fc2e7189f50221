"""The programs with streamable, which has no retries: those are tenacity's."""

from datetime import timedelta

import tenacity
from streamable import stream
from tqdm import tqdm

from front.job import broken, fetch, flaky, pages, show


def first():
    patient = tenacity.retry(stop=tenacity.stop_after_attempt(3))(flaky)
    return list(stream(pages).map(patient, concurrency=20))


def rate_limit():
    slow = stream(pages).throttle(100, per=timedelta(seconds=1))
    return list(slow.map(fetch, concurrency=20))


def retry():
    patient = tenacity.retry(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_random_exponential(0.01),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )(flaky)
    return list(stream(pages).map(patient, concurrency=20))


def progress():
    return list(tqdm(stream(pages).map(fetch, concurrency=20), total=len(pages)))


def streaming():
    for text in stream(pages).map(fetch, concurrency=20, as_completed=True):
        show(text)


def errors_returned():
    texts = stream(pages).map(broken, concurrency=20)
    return list(texts.catch(Exception, replace=lambda error: error))
