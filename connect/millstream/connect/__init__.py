"""Connectors: how records come into the log and leave it.

`source` and `sink` make a connector of one function; the classes of `api` make larger ones;
`Worker` runs them. Connectors for files and databases are in `millstream.connectors`.
"""

from __future__ import annotations

from .api import (
    Connector,
    PartitionState,
    SinkConfig,
    SinkConnector,
    SinkContext,
    SinkTask,
    SourceConfig,
    SourceConnector,
    SourceContext,
    SourceTask,
    TaskConfig,
)
from .config import ConnectorConfig, setting, settings
from .converter import BytesConverter, Converter, JsonConverter, StringConverter
from .errors import (
    BadRecordError,
    ConfigFault,
    ConnectConfigError,
    ConnectError,
    ConnectorFailedError,
    ConnectorFencedError,
    ConversionError,
    FatalConnectError,
    RetriableConnectError,
)
from .functions import FunctionSink, FunctionSource, sink, source
from .records import (
    Rejection,
    SinkBatch,
    SinkRecord,
    SourceBatch,
    SourceOffset,
    SourcePartition,
    SourceRecord,
    Stage,
)
from .status import ConnectorStatus, State, TaskStatus
from .worker import Worker

__all__ = [
    "source",
    "sink",
    "FunctionSource",
    "FunctionSink",
    "Connector",
    "SourceConnector",
    "SourceTask",
    "SourceContext",
    "SourceConfig",
    "SinkConnector",
    "SinkTask",
    "SinkContext",
    "SinkConfig",
    "PartitionState",
    "TaskConfig",
    "ConnectorConfig",
    "setting",
    "settings",
    "Converter",
    "JsonConverter",
    "StringConverter",
    "BytesConverter",
    "SourceRecord",
    "SourceBatch",
    "SourcePartition",
    "SourceOffset",
    "SinkRecord",
    "SinkBatch",
    "Rejection",
    "Stage",
    "Worker",
    "ConnectorStatus",
    "TaskStatus",
    "State",
    "ConnectError",
    "ConnectConfigError",
    "ConfigFault",
    "RetriableConnectError",
    "BadRecordError",
    "ConversionError",
    "FatalConnectError",
    "ConnectorFencedError",
    "ConnectorFailedError",
]
