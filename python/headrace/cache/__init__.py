"""Results of paid calls that are kept, and calls of one moment that are made once."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.cache.cache import Cache as Cache, CacheStats as CacheStats
    from headrace.cache.lru import LruStore as LruStore
    from headrace.cache.sqlite import SqliteStore as SqliteStore
    from headrace.cache.store import CacheStore as CacheStore
else:
    __getattr__, __dir__ = lazy_exports(__name__)
