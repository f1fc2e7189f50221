"""Push: eager streams, from one to many."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.push.base import PushObj as PushObj
    from headrace.push.batching import (
        PushBufferObj as PushBufferObj,
        PushWindowObj as PushWindowObj,
    )
    from headrace.push.builder import PushChain as PushChain
    from headrace.push.fanout import (
        PushDistributeObj as PushDistributeObj,
        PushForkObj as PushForkObj,
        PushLabeledDistributeObj as PushLabeledDistributeObj,
        PushRoundRobinObj as PushRoundRobinObj,
    )
    from headrace.push.flattening import (
        PushFlatMapObj as PushFlatMapObj,
        PushFlattenObj as PushFlattenObj,
    )
    from headrace.push.limit import SinkCapacityObj as SinkCapacityObj
    from headrace.push.signal import PushSignalObj as PushSignalObj
    from headrace.push.sink import (
        SinkCallbackObj as SinkCallbackObj,
        SinkCollectObj as SinkCollectObj,
        SinkNullObj as SinkNullObj,
        SinkObj as SinkObj,
    )
    from headrace.push.slicing import PushTakeObj as PushTakeObj
    from headrace.push.timing import PushWindowTimeoutObj as PushWindowTimeoutObj
    from headrace.push.transform import (
        PushCallbackObj as PushCallbackObj,
        PushDedupeObj as PushDedupeObj,
        PushFilterObj as PushFilterObj,
        PushMapObj as PushMapObj,
        PushObj1To1Link as PushObj1To1Link,
        PushReduceObj as PushReduceObj,
        PushSerialObj as PushSerialObj,
    )
    from headrace.push.writer import SinkWriterObj as SinkWriterObj
else:
    __getattr__, __dir__ = lazy_exports(__name__)
