"""Push: eager streams, from one to many."""

from headrace.push.base import PushObj
from headrace.push.group import PushDistributeObj, PushForkObj
from headrace.push.sink import SinkCollectObj, SinkObj
from headrace.push.transform import (
    PushDedupeObj,
    PushFilterObj,
    PushMapObj,
    PushObj1To1Link,
    PushReduceObj,
    PushSerialObj,
)

__all__ = [
    "PushDedupeObj",
    "PushDistributeObj",
    "PushFilterObj",
    "PushForkObj",
    "PushMapObj",
    "PushObj",
    "PushObj1To1Link",
    "PushReduceObj",
    "PushSerialObj",
    "SinkCollectObj",
    "SinkObj",
]
