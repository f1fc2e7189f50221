"""Helpers of the whole package. Nothing here is public API."""
