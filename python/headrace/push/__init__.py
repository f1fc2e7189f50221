"""Push: eager streams, from one to many."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazily

if TYPE_CHECKING:
    from headrace.push.base import *
    from headrace.push.batching import *
    from headrace.push.builder import *
    from headrace.push.fanout import *
    from headrace.push.limit import *
    from headrace.push.signal import *
    from headrace.push.sink import *
    from headrace.push.timing import *
    from headrace.push.transform import *
    from headrace.push.writer import *
else:
    # The same for the interpreter, which imports a name when it is first asked for: which module has which.
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "base": "PushObj",
            "limit": "SinkCapacityObj",
            "builder": "PushChain",
            "fanout": "PushDistributeObj PushForkObj PushLabeledDistributeObj PushRoundRobinObj",
            "batching": "PushBufferObj PushFlatMapObj PushFlattenObj PushTakeObj PushWindowObj",
            "signal": "PushSignalObj",
            "sink": "SinkCallbackObj SinkCollectObj SinkNullObj SinkObj",
            "timing": "PushWindowTimeoutObj",
            "transform": """
                PushCallbackObj PushDedupeObj PushFilterObj PushMapObj PushObj1To1Link PushReduceObj
                PushSerialObj
            """,
            "writer": "SinkWriterObj",
        },
    )
