"""From a `kafka://` URL to a log, with a word about the library when it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from millstream.log.errors import ConfigError
from millstream.log.settings import SettingValue

from .address import parse_address

if TYPE_CHECKING:
    from .kafka_log import KafkaLog

__all__ = ["kafka_log"]


def kafka_log(url: str, config: Mapping[str, SettingValue] | None) -> KafkaLog:
    """The log at this address; it is reached when it is entered.

    Raises:
        ConfigError: the URL or a setting is wrong, or confluent-kafka is not installed.
    """
    address = parse_address(url, config)
    try:
        from .kafka_log import KafkaLog
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "confluent_kafka":
            raise
        raise ConfigError(
            f"{address.url} needs the library confluent-kafka. Install it with "
            "pip install 'millstream[kafka]'."
        ) from error
    return KafkaLog(address)
