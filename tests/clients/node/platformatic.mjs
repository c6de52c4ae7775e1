// Everything @platformatic/kafka is used for, once: node platformatic.mjs HOST:PORT. Prints JSON.
// zstd it has with Node 22.15 and later.
import zlib from "node:zlib";
import {
  Admin,
  Consumer,
  MessagesStreamModes,
  Producer,
  stringDeserializers,
  stringSerializers,
} from "@platformatic/kafka";

const base = { clientId: "tests", bootstrapBrokers: [process.argv[2]], retries: 3 };
const seen = {};
const codeOf = async (promise) => {
  try {
    await promise;
    return 0;
  } catch (error) {
    const text = JSON.stringify(error, (key, value) => (typeof value === "bigint" ? 0 : value));
    const codes = [];
    const look = (each) => {
      if (typeof each?.apiCode === "number") codes.push(each.apiCode);
      each?.errors && Object.values(each.errors).forEach(look);
      each?.cause && look(each.cause);
    };
    look(error);
    return codes[0] ?? text;
  }
};

const admin = new Admin(base);
const topic = "platformatic";
const [created] = await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 });
seen.created = [created.name, created.partitions, created.replicas];
seen.again = await codeOf(admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 }));
seen.copies = await codeOf(admin.createTopics({ topics: ["copies"], partitions: 1, replicas: 3 }));

let sent = 0;
const batch = (count) =>
  Array.from({ length: count }, () => ({
    topic,
    key: String(sent % 7),
    value: String(sent++),
    headers: { from: "js" },
  }));
const codecs = ["none", "gzip", "snappy", "lz4"];
if (zlib.zstdCompressSync) codecs.push("zstd");
for (const compression of codecs) {
  const producer = new Producer({
    ...base,
    serializers: stringSerializers,
    idempotent: true,
    compression,
  });
  await producer.send({ messages: batch(20), compression });
  await producer.close();
}
seen.sent = sent / codecs.length;

async function readAll(groupId, count) {
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers });
  const stream = await consumer.consume({
    topics: [topic],
    mode: MessagesStreamModes.EARLIEST,
    autocommit: false,
    sessionTimeout: 10000,
    heartbeatInterval: 500,
  });
  const values = [];
  for await (const message of stream) {
    values.push(`${message.value}/${message.headers.get("from")}`);
    if (values.length >= count) {
      await message.commit();
      break;
    }
  }
  await consumer.close(true);
  return values;
}
const values = await readAll("platformatic-group", sent);
seen.read = new Set(values).size / codecs.length;
seen.value = values[0].replace(/^\d+/, "N");

// From a place in a partition up to the record that is last then.
const places = "platformatic-places";
await admin.createTopics({ topics: [places], partitions: 1, replicas: 1 });
const writer = new Producer({ ...base, serializers: stringSerializers });
const place = (number) =>
  writer.send({
    messages: [{ topic: places, value: String(number), timestamp: BigInt(1000000 + number) }],
  });
for (let number = 0; number < 5; number++) await place(number);
let groups = 0;
async function readFrom(options, last, ready = () => {}) {
  const groupId = `platformatic-from-${groups++}`;
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers });
  const stream = await consumer.consume({ topics: [places], autocommit: false, maxWaitTime: 100, ...options });
  stream.once("fetch", ready);
  const found = [];
  for await (const message of stream) {
    found.push(message.value);
    if (message.value === last) break;
  }
  await consumer.close(true);
  return found;
}
const at = (offset) => ({
  mode: MessagesStreamModes.MANUAL,
  offsets: [{ topic: places, partition: 0, offset }],
});
const looking = new Consumer({ ...base, groupId: "platformatic-looking" });
const timed = await looking.listOffsets({ topics: [places], timestamp: 1000003n });
await looking.close(true);
seen.positions = {
  beginning: await readFrom({ mode: MessagesStreamModes.EARLIEST }, "4"),
  offset: await readFrom(at(2n), "4"),
  time: await readFrom(at(timed.get(places)[0]), "4"),
  end: await readFrom({ mode: MessagesStreamModes.LATEST }, "5", () => place(5)),
};

// A member alone in its group, beside another one, alone again.
async function share() {
  const member = async () => {
    const consumer = new Consumer({
      ...base,
      groupId: "platformatic-sharing",
      sessionTimeout: 10000,
      heartbeatInterval: 100,
      maxWaitTime: 100,
    });
    const joins = [];
    let wake = () => {};
    consumer.on("consumer:group:join", ({ assignments }) => {
      joins.push(assignments?.find((each) => each.topic === topic)?.partitions.length ?? 0);
      wake();
    });
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.LATEST });
    stream.resume();
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
  await second.close(true);
  const again = await untilFirst((count) => count === 3);
  await first.close(true);
  return [alone, both.sort(), again];
}
seen.shares = await share();

// Its consumer leaves out one aborted transaction of each producer in what it fetches at once.
const transactional = (name) =>
  new Producer({
    ...base,
    serializers: stringSerializers,
    transactionalId: `platformatic-${name}`,
    idempotent: true,
    retries: 0,
  });
const send = (transaction, value) =>
  transaction.send({ messages: [{ topic: places, key: "t", value }] });
const aborting = transactional("aborting");
for (const value of ["committed", "aborted"]) {
  const transaction = await aborting.beginTransaction();
  await send(transaction, value);
  await (value === "committed" ? transaction.commit() : transaction.abort());
}
await aborting.close();
const first = transactional("fenced");
const zombie = await first.beginTransaction();
await send(zombie, "zombie");
const second = transactional("fenced");
// It claims producer id 0 unless it is told that it has none; that fences it, as Kafka does.
seen.claims = await codeOf(second.beginTransaction());
const third = transactional("fenced");
const successor = await third.beginTransaction({ producerId: -1n, producerEpoch: -1 });
seen.fenced = await codeOf(zombie.commit());
await send(successor, "successor");
await successor.commit();
await third.close();
for (const each of [first, second]) await each.close(true).catch(() => {});
seen.transactions = (await readFrom(at(5n), "successor")).filter((each) => each !== "5");

seen.tooLarge = await codeOf(
  writer.send({ messages: [{ topic: places, value: "x".repeat(2000000) }] }),
);
seen.nowhere = await codeOf(
  writer.send({ messages: [{ topic: "a/b", value: "x" }], autocreateTopics: true }),
);
await writer.close();

const changed = { resourceType: 2, resourceName: topic };
await admin.incrementalAlterConfigs({
  resources: [
    { ...changed, configs: [{ name: "segment.ms", configOperation: 0, value: "600000" }] },
  ],
});
const [described] = await admin.describeConfigs({
  resources: [{ ...changed, configurationKeys: ["segment.ms", "cleanup.policy"] }],
});
seen.configs = described.configs.map((each) => [each.name, each.value, each.configSource]);
seen.badConfig = await codeOf(
  admin.incrementalAlterConfigs({
    resources: [{ ...changed, configs: [{ name: "segment.ms", configOperation: 0, value: "x" }] }],
  }),
);
await admin.createPartitions({ topics: [{ name: topic, count: 4, assignments: null }] });
const metadata = await admin.metadata({ topics: [topic] });
seen.partitions = metadata.topics.get(topic).partitionsCount;
const [deleted] = await admin.deleteRecords({
  topics: [{ name: topic, partitions: [{ partition: 0, offset: -1n }] }],
});
seen.emptied = deleted.partitions[0].lowWatermark > 0n;
seen.group = (await admin.describeGroups({ groups: ["platformatic-group"] })).get(
  "platformatic-group",
).state;
await admin.deleteGroups({ groups: ["platformatic-group"] });
await admin.deleteTopics({ topics: [topic] });
seen.left = (await admin.listTopics()).includes(topic);
await admin.close();
const hasty = new Admin({ ...base, retries: 0 });
seen.unknownTopic = await codeOf(hasty.deleteTopics({ topics: [topic] }));
await hasty.close();
console.log(JSON.stringify(seen));
process.exit(0);
