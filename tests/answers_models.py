"""Answers of openai, Azure and anthropic, in the formats that they document."""
# ruff: noqa: E501  # the messages of the services

from __future__ import annotations

from typing import Any

from tests.recorded import Recorded


def openai(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("openai", f"openai-{name}", *rest, **options)


def azure(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("azure", f"azure-{name}", *rest, **options)


def anthropic(name: str, *rest: Any, **options: Any) -> Recorded:
    return Recorded("anthropic", f"anthropic-{name}", *rest, **options)


OPENAI = [
    openai(
        "requests",
        "throttled",
        8.64,
        "rate_limit_exceeded",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json; charset=utf-8
        openai-organization: org-example
        openai-processing-ms: 4
        openai-version: 2020-10-01
        retry-after: 9
        retry-after-ms: 8640
        x-ratelimit-limit-requests: 10000
        x-ratelimit-limit-tokens: 200000
        x-ratelimit-remaining-requests: 0
        x-ratelimit-remaining-tokens: 199984
        x-ratelimit-reset-requests: 8.64s
        x-ratelimit-reset-tokens: 4ms
        x-request-id: req_0123456789abcdef
        """,
        """{"error": {"message": "Rate limit reached for gpt-4o-mini in organization org-example on requests per day (RPD): Limit 10000, Used 10000,
        Requested 1. Please try again in 8.64s. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "type": "requests", "param": null, "code": "rate_limit_exceeded"}}""".replace("\n", ""),
    ),
    openai(
        "tokens",
        "throttled",
        360.0,
        "rate_limit_exceeded",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json; charset=utf-8
        x-ratelimit-limit-requests: 10000
        x-ratelimit-limit-tokens: 30000
        x-ratelimit-remaining-requests: 9999
        x-ratelimit-remaining-tokens: 0
        x-ratelimit-reset-requests: 11m24s
        x-ratelimit-reset-tokens: 6m0s
        """,
        """{"error": {"message": "Rate limit reached for gpt-4o in organization org-example on tokens per min (TPM).",
        "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}""",
    ),
    openai(
        "tokens-by-message",
        "throttled",
        0.25,
        "rate_limit_exceeded",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json; charset=utf-8
        """,
        """{"error": {"message": "Rate limit reached for gpt-4o in organization org-example on tokens per min (TPM): Limit 30000, Used 29875, Requested 250. Please try again in 250ms.",
        "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}""",
        by_body=True,
    ),
    openai(
        "too-large",
        "permanent",
        None,
        "request larger than the limit",
        429,
        """
        content-type: application/json; charset=utf-8
        x-ratelimit-limit-tokens: 30000
        x-ratelimit-remaining-tokens: 30000
        x-ratelimit-reset-tokens: 0s
        """,
        """{"error": {"message": "Request too large for gpt-4o in organization org-example on tokens per min (TPM): Limit 30000, Requested 45000. The input or output tokens must be reduced in order to run successfully.",
        "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}""",
        by_body=True,
    ),
    openai(
        "quota",
        "fatal",
        None,
        "insufficient_quota",
        429,
        """
        content-type: application/json; charset=utf-8
        vary: Origin
        """,
        """{"error": {"message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}}""",
        by_body=True,
    ),
    openai(
        "key",
        "fatal",
        None,
        "invalid_api_key",
        401,
        """
        content-type: application/json; charset=utf-8
        www-authenticate: Bearer realm="OpenAI API"
        """,
        """{"error": {"message": "Incorrect API key provided: sk-exa***mple. You can find your API key at https://platform.openai.com/account/api-keys.",
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}""",
    ),
    openai(
        "country",
        "fatal",
        None,
        "unsupported_country_region_territory",
        403,
        "content-type: application/json",
        """{"error": {"code": "unsupported_country_region_territory", "message": "Country, region, or territory not supported",
        "param": null, "type": "request_forbidden"}}""",
    ),
    openai(
        "context",
        "permanent",
        None,
        "context_length_exceeded",
        400,
        "content-type: application/json",
        """{"error": {"message": "This model's maximum context length is 128000 tokens. However, your messages resulted in 130012 tokens. Please reduce the length of the messages.",
        "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}""",
    ),
    openai(
        "server",
        "transient",
        None,
        "server_error",
        500,
        """
        content-type: application/json
        x-ratelimit-remaining-requests: 9999
        x-ratelimit-reset-requests: 8.64s
        """,
        """{"error": {"message": "The server had an error while processing your request. Sorry about that!", "type": "server_error",
        "param": null, "code": null}}""",
    ),
    openai(
        "slow-down",
        "throttled",
        None,
        "slow_down",
        503,
        "content-type: application/json",
        """{"error": {"message": "The engine is currently overloaded, please slow down", "type": "service_unavailable_error", "param": null,
        "code": "slow_down"}}""",
        by_body=True,
    ),
]

AZURE = [
    azure(
        "requests",
        "throttled",
        25.812,
        "",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json
        apim-request-id: 00000000-0000-0000-0000-000000000000
        retry-after: 26
        retry-after-ms: 25812
        x-ms-region: Sweden Central
        x-ratelimit-limit-requests: 60
        x-ratelimit-remaining-requests: 0
        x-ratelimit-reset-requests: 26
        """,
        """{"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call rate limit of your current AIServices S0 pricing tier. Please retry after 26 seconds."}}""",
    ),
    azure(
        "tokens",
        "throttled",
        14.0,
        "RateLimitReached",
        429,
        """
        content-type: application/json
        x-ms-retry-after-ms: 14000
        x-ratelimit-reset-requests: 0
        x-ratelimit-reset-tokens: 14
        """,
        """{"error": {"code": "RateLimitReached", "message": "Your requests to gpt-4o for gpt-4o in Sweden Central have exceeded token rate limit. Please retry after 14 seconds."}}""",
    ),
    azure(
        "key",
        "fatal",
        None,
        "",
        401,
        "content-type: application/json",
        """{"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}""",
    ),
    azure(
        "filter",
        "permanent",
        None,
        "content_filter",
        400,
        "content-type: application/json",
        """{"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "type": null,
        "param": "prompt", "code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}""",
    ),
]

ANTHROPIC = [
    anthropic(
        "requests",
        "throttled",
        17.0,
        "rate_limit_error",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json
        retry-after: 17
        anthropic-ratelimit-requests-limit: 50
        anthropic-ratelimit-requests-remaining: 0
        anthropic-ratelimit-requests-reset: 2026-12-01T10:00:17Z
        anthropic-ratelimit-input-tokens-limit: 30000
        anthropic-ratelimit-input-tokens-remaining: 30000
        anthropic-ratelimit-input-tokens-reset: 2026-12-01T10:00:00Z
        request-id: req_011CSHoEeqs5C35K2UUqR7Fy
        """,
        """{"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your organization's rate limit of 50 requests per minute."}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}""",
    ),
    anthropic(
        "tokens",
        "throttled",
        41.0,
        "rate_limit_error",
        429,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json
        anthropic-ratelimit-requests-limit: 50
        anthropic-ratelimit-requests-remaining: 49
        anthropic-ratelimit-requests-reset: 2026-12-01T10:01:00Z
        anthropic-ratelimit-input-tokens-limit: 30000
        anthropic-ratelimit-input-tokens-remaining: 0
        anthropic-ratelimit-input-tokens-reset: 2026-12-01T10:00:41Z
        anthropic-ratelimit-output-tokens-limit: 8000
        anthropic-ratelimit-output-tokens-remaining: 8000
        anthropic-ratelimit-output-tokens-reset: 2026-12-01T10:00:00Z
        """,
        """{"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your organization's rate limit of 30,000 input tokens per minute."}}""",
    ),
    anthropic(
        "overloaded",
        "throttled",
        None,
        "overloaded_error",
        529,
        """
        date: Tue, 01 Dec 2026 10:00:00 GMT
        content-type: application/json
        x-should-retry: true
        """,
        """{"type": "error", "error": {"details": null, "type": "overloaded_error", "message": "Overloaded"}}""",
    ),
    anthropic(
        "credit",
        "fatal",
        None,
        "credit balance is too low",
        400,
        "content-type: application/json",
        """{"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}""",
        by_body=True,
    ),
    anthropic(
        "key",
        "fatal",
        None,
        "authentication_error",
        401,
        """
        content-type: application/json
        x-should-retry: false
        """,
        """{"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}""",
    ),
    anthropic(
        "size",
        "permanent",
        None,
        "request_too_large",
        413,
        "content-type: application/json",
        """{"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}""",
    ),
]
