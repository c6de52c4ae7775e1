// Everything KafkaJS is used for, once: node kafkajs.mjs HOST:PORT. Prints what it saw as JSON.
import kafkajs from "kafkajs";

const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
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
for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
  const messages = Array.from({ length: 30 }, () => ({
    key: String(sent % 7),
    value: String(sent++),
    headers: { from: "js" },
  }));
  await producer.send({ topic, messages, compression });
}
seen.sent = sent;
await producer.disconnect();

async function readAll(groupId, count) {
  const consumer = kafka.consumer({ groupId });
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
seen.read = new Set(values).size;
seen.value = values[0].replace(/^\d+/, "N");

const transactional = kafka.producer({
  transactionalId: "js-tx",
  idempotent: true,
  maxInFlightRequests: 1,
});
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
await transactional.disconnect();
const afterwards = await readAll("js-other", sent + 1);
seen.committed = afterwards.filter((each) => each.endsWith("/tx"));
const offsets = await admin.fetchOffsets({ groupId: "js-tx-group", topics: [topic] });
seen.txOffset = offsets[0].partitions.find((each) => each.partition === 0).offset;

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
seen.unknownTopic = await codeOf(admin.deleteTopics({ topics: [topic] }));
await admin.disconnect();
console.log(JSON.stringify(seen));
process.exit(0);
