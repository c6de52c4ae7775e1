// Everything @platformatic/kafka is used for, once: node platformatic.mjs HOST:PORT. Prints JSON.
// Not zstd, which it has with Node 22 and later.
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
for (const compression of ["none", "gzip", "snappy", "lz4"]) {
  const producer = new Producer({
    ...base,
    serializers: stringSerializers,
    idempotent: true,
    compression,
  });
  await producer.send({ messages: batch(20), compression });
  await producer.close();
}
seen.sent = sent;

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
seen.read = new Set(values).size;
seen.value = values[0].replace(/^\d+/, "N");

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
seen.unknownTopic = await codeOf(admin.deleteTopics({ topics: [topic] }));
await admin.close();
console.log(JSON.stringify(seen));
process.exit(0);
