// Everything KafkaJS is used for, once: node kafkajs.mjs HOST:PORT. Prints what it saw as JSON.
// It has gzip of its own, and takes the other codecs from whoever brings them.
import * as zlib from "node:zlib";
import { lz4Compress, lz4Decompress, snappyCompress, snappyDecompress } from "@platformatic/wasm-utils";
import kafkajs from "kafkajs";

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
const codec = (compress, decompress) => () => ({
  compress: async (encoder) => compress(encoder.buffer),
  decompress: async (buffer) => decompress(buffer),
});
CompressionCodecs[CompressionTypes.Snappy] = codec(snappyCompress, snappyDecompress);
CompressionCodecs[CompressionTypes.LZ4] = codec(lz4Compress, lz4Decompress);
const codecs = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy, CompressionTypes.LZ4];
if (zlib.zstdCompressSync) {
  CompressionCodecs[CompressionTypes.ZSTD] = codec(zlib.zstdCompressSync, zlib.zstdDecompressSync);
  codecs.push(CompressionTypes.ZSTD);
}
const brokers = [process.argv[2]];
const kafka = new Kafka({ clientId: "tests", brokers, logLevel: logLevel.NOTHING });
const seen = {};
const codeOf = async (promise) => {
  try {
    await promise;
    return 0;
  } catch (error) {
    return error.groups?.[0]?.errorCode ?? error.errors?.[0]?.code ?? error.cause?.code ?? error.code ?? error.message;
  }
};

const admin = kafka.admin();
await admin.connect();
const topic = "js";
seen.created = await admin.createTopics({
  topics: [
    {
      topic,
      numPartitions: 3,
      replicationFactor: 1,
      configEntries: [{ name: "retention.ms", value: "86400000" }],
    },
  ],
});
seen.createdAgain = await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] });
seen.copies = await codeOf(
  admin.createTopics({ topics: [{ topic: "js-copies", replicationFactor: 3 }] }),
);

const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
await producer.connect();
let sent = 0;
for (const compression of codecs) {
  const messages = Array.from({ length: 30 }, () => ({
    key: String(sent % 7),
    value: String(sent++),
    headers: { from: "js" },
  }));
  await producer.send({ topic, messages, compression });
}
seen.sent = sent / codecs.length;
await producer.disconnect();

async function readAll(groupId, count) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const values = [];
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${values.length} of ${count} read`)), 20000).unref();
    consumer.run({
      eachMessage: async ({ message }) => {
        values.push(`${message.value}/${message.headers.from}`);
        if (values.length >= count) resolve();
      },
    });
  });
  await consumer.disconnect();
  return values;
}
const values = await readAll("js-group", sent);
seen.read = new Set(values).size / codecs.length;
seen.value = values[0].replace(/^\d+/, "N");

// From a place in a partition up to the record that is last then.
const places = "js-places";
await admin.createTopics({ topics: [{ topic: places, numPartitions: 1 }] });
const writer = kafka.producer();
await writer.connect();
const place = (number) =>
  writer.send({
    topic: places,
    messages: [{ value: String(number), timestamp: String(1000000 + number) }],
  });
for (let number = 0; number < 5; number++) await place(number);
async function readFrom(name, options, last) {
  const consumer = kafka.consumer({ groupId: `js-from-${name}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic: places, fromBeginning: name !== "end" });
  const found = [];
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${name}: ${found}`)), 20000).unref();
    const forget = consumer.on(consumer.events.FETCH, () => {
      forget();
      if (name === "end") place(5);
    });
    consumer.run({
      eachMessage: async ({ message }) => {
        found.push(String(message.value));
        if (found.at(-1) === last) resolve();
      },
    });
    if (options.offset) consumer.seek({ topic: places, partition: 0, ...options });
  });
  await consumer.disconnect();
  return found;
}
const [timed] = await admin.fetchTopicOffsetsByTimestamp(places, 1000003);
seen.positions = {
  beginning: await readFrom("beginning", {}, "4"),
  offset: await readFrom("offset", { offset: "2" }, "4"),
  time: await readFrom("time", { offset: timed.offset }, "4"),
  end: await readFrom("end", {}, "5"),
};

// A member alone in its group, beside another one, alone again.
async function share() {
  const member = async () => {
    const consumer = kafka.consumer({ groupId: "js-sharing", heartbeatInterval: 100, maxWaitTimeInMs: 100 });
    const joins = [];
    let wake = () => {};
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      joins.push((payload.memberAssignment[topic] ?? []).length);
      wake();
    });
    await consumer.connect();
    await consumer.subscribe({ topic });
    await consumer.run({ eachMessage: async () => {} });
    const until = async (wanted) => {
      while (!joins.some(wanted)) await new Promise((resolve) => (wake = resolve));
      const found = joins.find(wanted);
      joins.length = 0;
      return found;
    };
    return [consumer, until];
  };
  const [first, untilFirst] = await member();
  const alone = await untilFirst((count) => count === 3);
  const [second, untilSecond] = await member();
  const both = await Promise.all([untilFirst, untilSecond].map((each) => each((n) => n === 1 || n === 2)));
  await second.disconnect();
  const again = await untilFirst((count) => count === 3);
  await first.disconnect();
  return [alone, both.sort(), again];
}
seen.shares = await share();

const transactions = { transactionalId: "js-tx", idempotent: true, maxInFlightRequests: 1 };
const transactional = kafka.producer(transactions);
await transactional.connect();
for (const commits of [true, false]) {
  const transaction = await transactional.transaction();
  const value = commits ? "committed" : "aborted";
  await transaction.send({ topic, messages: [{ key: "t", value, headers: { from: "tx" } }] });
  await transaction.sendOffsets({
    consumerGroupId: "js-tx-group",
    topics: [{ topic, partitions: [{ partition: 0, offset: commits ? "5" : "9" }] }],
  });
  await (commits ? transaction.commit() : transaction.abort());
}
const zombie = await transactional.transaction();
await zombie.send({ topic, messages: [{ key: "t", value: "zombie", headers: { from: "tx" } }] });
const successor = kafka.producer(transactions);
await successor.connect();
const last = await successor.transaction();
seen.fenced = await codeOf(zombie.commit());
await last.abort();
await successor.disconnect();
await transactional.disconnect();
const afterwards = await readAll("js-other", sent + 1);
seen.committed = afterwards.filter((each) => each.endsWith("/tx"));
const offsets = await admin.fetchOffsets({ groupId: "js-tx-group", topics: [topic] });
seen.txOffset = offsets[0].partitions.find((each) => each.partition === 0).offset;

const large = [{ value: Buffer.alloc(2000000) }];
seen.tooLarge = await codeOf(writer.send({ topic, messages: large }));
seen.nowhere = await codeOf(writer.send({ topic: "a/b", messages: [{ value: "x" }] }));
await writer.disconnect();

const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
seen.altered = (
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ ...resource, configEntries: [{ name: "segment.ms", value: "600000" }] }],
  })
).resources[0].errorCode;
const configs = await admin.describeConfigs({ resources: [resource], includeSynonyms: true });
const named = Object.fromEntries(
  configs.resources[0].configEntries.map((each) => [each.configName, each.configValue]),
);
seen.configs = [named["segment.ms"], named["retention.ms"], named["cleanup.policy"]];
await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
seen.partitions = metadata.topics[0].partitions.length;
await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "-1" }] });
const [first] = (await admin.fetchTopicOffsets(topic)).filter((each) => each.partition === 0);
seen.emptied = first.low === first.high;
const described = await admin.describeGroups(["js-group"]);
seen.group = described.groups[0].state;
seen.listed = (await admin.listGroups()).groups.some((each) => each.groupId === "js-group");
await admin.deleteGroups(["js-group"]);
seen.unknownGroup = await codeOf(admin.deleteGroups(["js-missing"]));
await admin.deleteTopics({ topics: [topic] });
seen.left = (await admin.listTopics()).includes(topic);
const hasty = kafka.admin({ retry: { retries: 0 } });
await hasty.connect();
seen.unknownTopic = await codeOf(hasty.deleteTopics({ topics: [topic] }));
await hasty.disconnect();
await admin.disconnect();
console.log(JSON.stringify(seen));
process.exit(0);
