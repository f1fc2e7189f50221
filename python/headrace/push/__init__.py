"""Push: eager streams, from one to many."""

from headrace.push.base import PushObj
from headrace.push.chain import PushChain
from headrace.push.fanout import (
    PushDistributeObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushRoundRobinObj,
)
from headrace.push.group import (
    PushBufferObj,
    PushFlatMapObj,
    PushFlattenObj,
    PushTakeObj,
    PushWindowObj,
)
from headrace.push.signal import PushSignalObj
from headrace.push.sink import SinkCallbackObj, SinkCollectObj, SinkNullObj, SinkObj
from headrace.push.time import PushWindowTimeoutObj
from headrace.push.transform import (
    PushCallbackObj,
    PushDedupeObj,
    PushFilterObj,
    PushMapObj,
    PushObj1To1Link,
    PushReduceObj,
    PushSerialObj,
)
from headrace.push.writer import SinkWriterObj

__all__ = [
    "PushBufferObj",
    "PushCallbackObj",
    "PushChain",
    "PushDedupeObj",
    "PushDistributeObj",
    "PushFilterObj",
    "PushFlatMapObj",
    "PushFlattenObj",
    "PushForkObj",
    "PushLabeledDistributeObj",
    "PushMapObj",
    "PushObj",
    "PushObj1To1Link",
    "PushReduceObj",
    "PushRoundRobinObj",
    "PushSerialObj",
    "PushSignalObj",
    "PushTakeObj",
    "PushWindowObj",
    "PushWindowTimeoutObj",
    "SinkCallbackObj",
    "SinkCollectObj",
    "SinkNullObj",
    "SinkObj",
    "SinkWriterObj",
]
