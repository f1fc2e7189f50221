"""Push: eager streams, from one to many."""

from typing import TYPE_CHECKING

from headrace.lazy import lazily

if TYPE_CHECKING:
    from headrace.push.base import PushObj
    from headrace.push.capacity import SinkCapacityObj
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
else:
    # What a checker reads above, for the interpreter: which module has which names.
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "base": "PushObj",
            "capacity": "SinkCapacityObj",
            "chain": "PushChain",
            "fanout": "PushDistributeObj PushForkObj PushLabeledDistributeObj PushRoundRobinObj",
            "group": "PushBufferObj PushFlatMapObj PushFlattenObj PushTakeObj PushWindowObj",
            "signal": "PushSignalObj",
            "sink": "SinkCallbackObj SinkCollectObj SinkNullObj SinkObj",
            "time": "PushWindowTimeoutObj",
            "transform": """
                PushCallbackObj PushDedupeObj PushFilterObj PushMapObj PushObj1To1Link PushReduceObj
                PushSerialObj
            """,
            "writer": "SinkWriterObj",
        },
    )


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
    "SinkCapacityObj",
    "SinkCollectObj",
    "SinkNullObj",
    "SinkObj",
    "SinkWriterObj",
]
