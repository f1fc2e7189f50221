"""Answers of Gemini, of Bedrock and of web servers, in the formats that they document."""
# ruff: noqa: E501  # the messages of the services

from __future__ import annotations

from typing import Any

from tests.recorded import Recorded


def gemini(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("gemini", f"gemini-{name}", *rest, **options)


def bedrock(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("bedrock", f"bedrock-{name}", *rest, **options)


def http(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("http", f"http-{name}", *rest, **options)


GEMINI = [
    gemini(
        "minute",
        "throttled",
        13.5,
        "RESOURCE_EXHAUSTED",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json; charset=UTF-8
        server-timing: gfet4t7; dur=162
        """,
        """{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
         "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaDimensions": {"location": "global", "model": "gemini-2.0-flash"}, "quotaValue": "15"}]},
        {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "Learn more about Gemini API quotas", "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}]}}""",
        by_body=True,
    ),
    gemini(
        "day",
        "fatal",
        None,
        "quota_per_day",
        429,
        "content-type: application/json; charset=UTF-8",
        """{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
         "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaDimensions": {"model": "gemini-2.5-pro", "location": "global"}, "quotaValue": "50"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}]}}""",
        by_body=True,
    ),
    gemini(
        "key",
        "fatal",
        None,
        "API_KEY_INVALID",
        400,
        "content-type: application/json; charset=UTF-8",
        """{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}]}}""",
        by_body=True,
    ),
    gemini(
        "overloaded",
        "transient",
        None,
        "UNAVAILABLE",
        503,
        "content-type: application/json; charset=UTF-8",
        """{"error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}""",
    ),
    gemini(
        "argument",
        "permanent",
        None,
        "INVALID_ARGUMENT",
        400,
        "content-type: application/json; charset=UTF-8",
        """{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}""",
    ),
]

BEDROCK = [
    bedrock(
        "throttling",
        "throttled",
        None,
        "ThrottlingException",
        400,
        """
        content-type: application/json
        x-amzn-requestid: 00000000-0000-0000-0000-000000000000
        x-amzn-errortype: ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/
        """,
        """{"message": "Too many requests, please wait before trying again."}""",
    ),
    bedrock(
        "quota",
        "fatal",
        None,
        "ServiceQuotaExceededException",
        400,
        """
        content-type: application/json
        x-amzn-errortype: ServiceQuotaExceededException
        """,
        """{"message": "Your request exceeds the service quota for your account."}""",
    ),
    bedrock(
        "token",
        "fatal",
        None,
        "ExpiredTokenException",
        403,
        """
        content-type: application/json
        x-amzn-errortype: ExpiredTokenException
        """,
        """{"message": "The security token included in the request is expired"}""",
    ),
    bedrock(
        "access",
        "fatal",
        None,
        "AccessDeniedException",
        403,
        """
        content-type: application/json
        x-amzn-errortype: AccessDeniedException
        """,
        """{"message": "You don't have access to the model with the specified model ID."}""",
    ),
    bedrock(
        "validation",
        "permanent",
        None,
        "ValidationException",
        400,
        """
        content-type: application/json
        x-amzn-errortype: ValidationException
        """,
        """{"message": "Input is too long for requested model."}""",
    ),
    bedrock(
        "model",
        "transient",
        None,
        "ModelErrorException",
        424,
        """
        content-type: application/json
        x-amzn-errortype: ModelErrorException
        """,
        """{"message": "The model returned the following errors: 500", "originalStatusCode": 500}""",
    ),
]

HTTP = [
    http(
        "date",
        "throttled",
        90.0,
        "",
        503,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        retry-after: Tue, 01 Dec 2026 10:01:30 GMT
        content-type: text/html
        """,
        "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>",
    ),
    http(
        "past-date",
        "throttled",
        0.0,
        "",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        retry-after: Tuesday, 01-Dec-26 09:59:00 GMT
        """,
        "",
    ),
    http("seconds", "throttled", 2.5, "", 429, "retry-after: 2.5", ""),
    http("bare-429", "throttled", None, "", 429, "content-type: text/plain", "slow down"),
    http("bare-503", "transient", None, "", 503, "content-type: text/plain", "no upstream"),
    http("gateway", "transient", 3.0, "", 502, "retry-after: 3", ""),
    http("conflict", "transient", None, "", 409, "content-type: text/plain", ""),
    http("timeout", "transient", None, "", 408, "connection: close", ""),
    http("payment", "fatal", None, "", 402, "content-type: application/json", "{}"),
    http("forbidden", "permanent", None, "", 403, "content-type: text/html", "<h1>403</h1>"),
    http(
        "secondary",
        "throttled",
        60.0,
        "",
        403,
        """
        retry-after: 60
        x-ratelimit-remaining: 57
        """,
        """{"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}""",
    ),
    http(
        "primary",
        "throttled",
        30.0,
        "",
        403,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        x-ratelimit-limit: 60
        x-ratelimit-remaining: 0
        x-ratelimit-reset: 1796119230
        """,
        """{"message": "API rate limit exceeded for 192.0.2.1."}""",
    ),
    http("missing", "permanent", None, "", 404, "content-type: text/html", "<h1>404</h1>"),
    http("gone", "permanent", None, "", 410, "content-type: text/html", ""),
    http(
        "entity",
        "permanent",
        None,
        "",
        422,
        "content-type: application/json",
        """{"detail": [{"loc": ["body", "x"], "type": "missing"}]}""",
    ),
]
