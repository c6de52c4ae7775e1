"""A topology in words and pictures."""

from __future__ import annotations

from millstream.streams.app import App
from millstream.streams.describe import describe
from millstream.streams.windows import hopping


def shop() -> App:
    app = App("shop")
    orders = app.stream(app.topic("orders", key=str, value=dict))
    cities = app.global_table(app.topic("cities", key=str, value=str))
    large = orders.filter(lambda order: order["n"] > 1, name="large")
    large.left_join(
        cities, lambda order, city: [order, city], key=lambda o: o["city"], name="in"
    ).to("located")
    large.group_by(lambda order: order["city"], name="city").count(name="orders-of").to("counts")
    windowed = orders.group_by_key().window(hopping("1h", advance="5m"), late_to="late")
    windowed.count(name="hourly").final().to("hours")
    return app


def test_as_kafka_streams_prints_it() -> None:
    """Source: the format of Topology.describe() in Kafka Streams."""
    assert describe(shop().topology(), "kafka") == "\n".join(
        [
            "Topologies:",
            "   Sub-topology: 0",
            "    Source: orders (topics: [orders])",
            "      --> large, hourly",
            "    Processor: large (stores: [])",
            "      --> in, city",
            "      <-- orders",
            "    Processor: in (stores: [cities])",
            "      --> to-located",
            "      <-- large",
            "    Sink: to-located (topic: located)",
            "      <-- in",
            "    Processor: city (stores: [])",
            "      --> orders-of-parts",
            "      <-- large",
            "    Processor: orders-of-parts (stores: [])",
            "      --> orders-of-repartition-sink",
            "      <-- city",
            "    Sink: orders-of-repartition-sink (topic: shop-orders-of-repartition)",
            "      <-- orders-of-parts",
            "    Processor: hourly (stores: [hourly])",
            "      --> hourly-final, hourly-late",
            "      <-- orders",
            "    Sink: hourly-late (topic: late)",
            "      <-- hourly",
            "    Processor: hourly-final (stores: [])",
            "      --> to-hours",
            "      <-- hourly",
            "    Sink: to-hours (topic: hours)",
            "      <-- hourly-final",
            "",
            "  Sub-topology: 1",
            "    Source: shop-orders-of-repartition (topics: [shop-orders-of-repartition])",
            "      --> orders-of",
            "    Processor: orders-of (stores: [orders-of])",
            "      --> to-counts",
            "      <-- shop-orders-of-repartition",
            "    Sink: to-counts (topic: counts)",
            "      <-- orders-of",
            "",
            "  Sub-topology: 2 for global store (will not generate tasks)",
            "    Source: cities-source (topics: [cities])",
            "      --> cities",
            "    Processor: cities (stores: [cities])",
            "      --> none",
            "      <-- cities-source",
            "",
        ]
    )


def test_as_text() -> None:
    text = describe(shop().topology())
    assert "sub-topology 1\n" in text
    assert (
        "store hourly (windows of 1h every 5m, grace 0ms), changelog shop-hourly-changelog" in text
    )
    assert "left_join" not in text
    assert "looks into cities" in text


def test_as_a_flowchart() -> None:
    lines = describe(shop().topology(), "mermaid").splitlines()
    assert lines[0] == "flowchart TD"
    assert any('[("located")]' in line for line in lines)
    assert sum("subgraph" in line for line in lines) == 2
