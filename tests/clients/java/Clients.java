import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** The Java client writes, reads, and looks after a log; tells what it saw as JSON. */
public class Clients {
    static String address;
    static final Map<String, Object> seen = new LinkedHashMap<>();

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        switch (arguments[1]) {
            case "messages" -> messages();
            case "transactions" -> transactions();
            case "fencing" -> fencing();
            case "groups" -> groups();
            case "admin" -> admin();
            default -> throw new IllegalArgumentException(arguments[1]);
        }
        System.out.println(new ObjectMapper().writeValueAsString(seen));
    }

    static Map<String, Object> config(Object... pairs) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", address);
        for (int i = 0; i < pairs.length; i += 2) config.put((String) pairs[i], pairs[i + 1]);
        return config;
    }

    static KafkaProducer<String, String> producer(Object... pairs) {
        return new KafkaProducer<>(config(pairs), new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Object... pairs) {
        return new KafkaConsumer<>(config(pairs), new StringDeserializer(), new StringDeserializer());
    }

    static Admin admins() {
        return Admin.create(config());
    }

    static void create(String topic, int partitions) throws Exception {
        try (Admin admin = admins()) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
    }

    /** The class of what it failed with, null if it did not. */
    static String failure(Future<?> future) throws InterruptedException {
        try {
            future.get();
            return null;
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName();
        }
    }

    static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> from, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long end = System.nanoTime() + 30_000_000_000L;
        while (found.size() < count && System.nanoTime() < end) {
            from.poll(Duration.ofMillis(500)).forEach(found::add);
        }
        return found;
    }

    /** All values of partition 0 up to its end, as this isolation level sees it. */
    static List<String> values(String topic, String isolation) {
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = consumer("isolation.level", isolation)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            List<String> found = new ArrayList<>();
            while (consumer.position(partition) < end) {
                consumer.poll(Duration.ofMillis(500)).forEach(each -> found.add(each.value()));
            }
            return found;
        }
    }

    static void messages() throws Exception {
        create("java-messages", 3);
        long before = System.currentTimeMillis();
        int sent = 0;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var producer = producer("compression.type", codec, "linger.ms", 50)) {
                List<Future<RecordMetadata>> answers = new ArrayList<>();
                for (int number = 0; number < 20; number++) {
                    var record = new ProducerRecord<>("java-messages", codec + number, "v" + number);
                    record.headers().add("codec", codec.getBytes(StandardCharsets.UTF_8));
                    answers.add(producer.send(record));
                }
                for (var each : answers) each.get();
                sent += answers.size();
            }
        }
        try (var producer = producer("acks", "1", "enable.idempotence", false)) {
            producer.send(new ProducerRecord<>("java-messages", 0, null, (String) null)).get();
            var tooLarge = new ProducerRecord<>("java-messages", 0, "k", "v".repeat(1_040_000));
            producer.send(tooLarge).get();
            seen.put("nowhere", failure(producer.send(new ProducerRecord<>("a/b", "k", "v"))));
        }
        try (var producer = producer("max.request.size", 3_000_000)) {
            var tooLarge = new ProducerRecord<>("java-messages", "k", "v".repeat(2_000_000));
            seen.put("tooLarge", failure(producer.send(tooLarge)));
        }
        try (var consumer = consumer()) {
            List<TopicPartition> all = new ArrayList<>();
            for (int each = 0; each < 3; each++) all.add(new TopicPartition("java-messages", each));
            consumer.assign(all);
            consumer.seekToBeginning(all);
            var found = read(consumer, sent + 2);
            seen.put("read", found.size());
            seen.put("headers", found.stream().filter(each -> each.headers().lastHeader("codec") != null
                && each.key().startsWith(new String(each.headers().lastHeader("codec").value()))).count());
            seen.put("nulls", found.stream().filter(each -> each.key() == null && each.value() == null).count());
            Map<TopicPartition, Long> times = new HashMap<>();
            for (var each : all) times.put(each, before);
            seen.put("from", consumer.offsetsForTimes(times).values().stream()
                .mapToLong(each -> each == null ? -1 : each.offset()).sum());
            times.replaceAll((where, time) -> before + 3_600_000);
            seen.put("later", consumer.offsetsForTimes(times).values().stream().allMatch(Objects::isNull));
            consumer.seek(all.get(0), 2);
            consumer.assign(all.subList(0, 1));
            seen.put("sought", read(consumer, 1).get(0).offset());
            consumer.seek(all.get(0), 1_000_000);
            long end = consumer.endOffsets(all).get(all.get(0));
            for (int tries = 0; tries < 100 && consumer.position(all.get(0)) != end; tries++) {
                consumer.poll(Duration.ofMillis(100));
            }
            seen.put("reset", consumer.position(all.get(0)) == end);
            var middle = found.stream().filter(each -> each.partition() == 0).skip(9).findFirst().get();
            var timed = consumer.offsetsForTimes(Map.of(all.get(0), middle.timestamp())).get(all.get(0));
            consumer.seek(all.get(0), timed.offset());
            seen.put("fromTime", timed.offset() <= middle.offset()
                && read(consumer, 1).get(0).timestamp() == middle.timestamp());
            consumer.seekToEnd(consumer.assignment());
            consumer.position(all.get(0));
            try (var producer = producer()) {
                producer.send(new ProducerRecord<>("java-messages", 0, "k", "new")).get();
            }
            seen.put("fromEnd", read(consumer, 1).get(0).value());
        }
        try (var consumer = consumer("auto.offset.reset", "none")) {
            var first = new TopicPartition("java-messages", 0);
            consumer.assign(List.of(first));
            consumer.seek(first, 1_000_000);
            try {
                for (int tries = 0; tries < 20; tries++) consumer.poll(Duration.ofMillis(500));
            } catch (org.apache.kafka.clients.consumer.OffsetOutOfRangeException error) {
                seen.put("outOfRange", error.getClass().getSimpleName());
            }
        }
    }

    static void transactions() throws Exception {
        create("java-in", 1);
        create("java-out", 1);
        try (var producer = producer()) {
            for (int number = 0; number < 10; number++) {
                producer.send(new ProducerRecord<>("java-in", "k", "" + number)).get();
            }
        }
        try (var producer = producer("transactional.id", "java-tx");
            var consumer = consumer("group.id", "java-tx-group", "auto.offset.reset", "earliest",
                "enable.auto.commit", false, "max.poll.records", 5)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("java-out", "k", "aborted"));
            producer.flush();
            seen.put("open", values("java-out", "read_committed"));
            producer.abortTransaction();
            consumer.subscribe(List.of("java-in"));
            for (int round = 0; round < 2; round++) {
                var records = read(consumer, 5);
                producer.beginTransaction();
                for (var each : records) {
                    producer.send(new ProducerRecord<>("java-out", each.key(), each.value()));
                }
                var next = new OffsetAndMetadata(records.get(4).offset() + 1, "note");
                var where = new TopicPartition("java-in", 0);
                producer.sendOffsetsToTransaction(Map.of(where, next), consumer.groupMetadata());
                producer.flush();
                if (round == 0) producer.commitTransaction();
                else producer.abortTransaction();
                seen.put("committed" + round, consumer.committed(Set.of(where)).get(where).offset());
            }
            var stale = new ConsumerGroupMetadata("java-tx-group", 0, "nobody", Optional.empty());
            producer.beginTransaction();
            try {
                producer.sendOffsetsToTransaction(
                    Map.of(new TopicPartition("java-in", 0), new OffsetAndMetadata(9)), stale);
                producer.commitTransaction();
            } catch (CommitFailedException error) {
                seen.put("stale", error.getClass().getSimpleName());
                producer.abortTransaction();
            }
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
        }
        try (Admin admin = admins()) {
            seen.put("epoch", admin.describeTransactions(List.of("java-tx")).description("java-tx")
                .get().producerEpoch());
        }
        seen.put("read_committed", values("java-out", "read_committed"));
        seen.put("read_uncommitted", values("java-out", "read_uncommitted"));
    }

    static void fencing() throws Exception {
        create("java-fenced", 1);
        var old = producer("transactional.id", "java-fencing");
        old.initTransactions();
        old.beginTransaction();
        old.send(new ProducerRecord<>("java-fenced", "k", "old")).get();
        var successor = producer("transactional.id", "java-fencing");
        successor.initTransactions();
        try {
            old.commitTransaction();
        } catch (ProducerFencedException error) {
            seen.put("commit", error.getClass().getSimpleName());
        }
        old.close();
        successor.beginTransaction();
        successor.send(new ProducerRecord<>("java-fenced", "k", "new")).get();
        var third = producer("transactional.id", "java-fencing");
        third.initTransactions();
        seen.put("send", failure(successor.send(new ProducerRecord<>("java-fenced", "k", "late"))));
        successor.close();
        third.beginTransaction();
        third.send(new ProducerRecord<>("java-fenced", "k", "third"));
        third.commitTransaction();
        third.close();
        try (var slow = producer("transactional.id", "java-slow", "transaction.timeout.ms", 1000)) {
            slow.initTransactions();
            slow.beginTransaction();
            slow.send(new ProducerRecord<>("java-fenced", "k", "slow")).get();
            try (var consumer = consumer("isolation.level", "read_committed"); Admin admin = admins()) {
                String state = "Ongoing";
                while (!state.equals("CompleteAbort")) {
                    state = admin.describeTransactions(List.of("java-slow")).description("java-slow")
                        .get().state().toString();
                }
                seen.put("timedOut", state);
            }
            try {
                slow.commitTransaction();
            } catch (KafkaException error) {
                seen.put("late", error.getClass().getSimpleName());
            }
            slow.close(Duration.ZERO);
        }
        try (var forever = producer("transactional.id", "java-forever",
            "transaction.timeout.ms", 1_000_000_000)) {
            forever.initTransactions();
        } catch (KafkaException error) {
            seen.put("forever", error.getClass().getSimpleName());
        }
        try (var again = producer("transactional.id", "java-slow"); Admin admin = admins()) {
            again.initTransactions();
            again.beginTransaction();
            again.send(new ProducerRecord<>("java-fenced", "k", "fenced by the operator")).get();
            admin.fenceProducers(List.of("java-slow")).all().get();
            try {
                again.commitTransaction();
            } catch (KafkaException error) {
                seen.put("byOperator", error.getClass().getSimpleName());
            }
        }
        seen.put("read_committed", values("java-fenced", "read_committed"));
    }

    static void groups() throws Exception {
        create("java-grouped", 4);
        for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            String group = "java-" + assignor;
            Object[] settings = {"group.id", group, "auto.offset.reset", "earliest",
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor,
                "heartbeat.interval.ms", 100, "session.timeout.ms", 6000, "enable.auto.commit", false};
            try (var first = consumer(settings)) {
                first.subscribe(List.of("java-grouped"));
                while (first.assignment().size() != 4) first.poll(Duration.ofMillis(100));
                try (var second = consumer(settings)) {
                    second.subscribe(java.util.regex.Pattern.compile("java-group.*"));
                    while (first.assignment().size() != 2 || second.assignment().size() != 2) {
                        first.poll(Duration.ofMillis(50));
                        second.poll(Duration.ofMillis(50));
                    }
                }
                while (first.assignment().size() != 4) first.poll(Duration.ofMillis(100));
                for (int each = 0; each < 4; each++) {
                    var where = new TopicPartition("java-grouped", each);
                    first.commitSync(Map.of(where, new OffsetAndMetadata(0, "note " + each)));
                }
                var committed = first.committed(first.assignment());
                seen.put(assignor, committed.values().stream().map(OffsetAndMetadata::metadata).sorted().toList());
            }
        }
        Object[] fixed = {"group.id", "java-static", "group.instance.id", "one",
            "heartbeat.interval.ms", 100, "session.timeout.ms", 6000};
        var former = consumer(fixed);
        former.subscribe(List.of("java-grouped"));
        while (former.assignment().isEmpty()) former.poll(Duration.ofMillis(100));
        try (var again = consumer(fixed)) {
            again.subscribe(List.of("java-grouped"));
            while (again.assignment().isEmpty()) again.poll(Duration.ofMillis(100));
            try {
                for (int tries = 0; tries < 100; tries++) former.poll(Duration.ofMillis(100));
            } catch (FencedInstanceIdException error) {
                seen.put("static", error.getClass().getSimpleName());
            }
            former.close();
        }
    }

    static void admin() throws Exception {
        try (Admin admin = admins(); var producer = producer()) {
            var topic = new NewTopic("java-admin", 2, (short) 1).configs(Map.of("retention.ms", "600000"));
            var created = admin.createTopics(List.of(topic));
            created.all().get();
            seen.put("created", created.numPartitions("java-admin").get());
            seen.put("config", created.config("java-admin").get().get("retention.ms").value());
            seen.put("again", failure(admin.createTopics(List.of(topic)).all()));
            seen.put("checked", failure(admin.createTopics(List.of(new NewTopic("java-checked", 1, (short) 1)),
                new CreateTopicsOptions().validateOnly(true)).all()));
            seen.put("listed", admin.listTopics().names().get().contains("java-checked"));
            var id = admin.describeTopics(List.of("java-admin")).allTopicNames().get().get("java-admin").topicId();
            seen.put("byId", admin.describeTopics(TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds().get().get(id).name());
            seen.put("bad", failure(admin.createTopics(List.of(new NewTopic("java/bad", 1, (short) 1))).all()));
            seen.put("copies", failure(admin.createTopics(List.of(new NewTopic("java-b", 1, (short) 3))).all()));
            seen.put("fewer", failure(admin.createPartitions(
                Map.of("java-admin", NewPartitions.increaseTo(1))).all()));
            admin.createPartitions(Map.of("java-admin", NewPartitions.increaseTo(3))).all().get();
            seen.put("partitions", admin.describeTopics(List.of("java-admin")).allTopicNames().get()
                .get("java-admin").partitions().size());
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, "java-admin");
            admin.incrementalAlterConfigs(Map.of(resource, List.of(
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
                new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
            var altered = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            seen.put("altered", altered.get("cleanup.policy").value() + " " + altered.get("retention.ms").value());
            for (int number = 0; number < 5; number++) {
                producer.send(new ProducerRecord<>("java-admin", 0, "k", "v")).get();
            }
            var where = new TopicPartition("java-admin", 0);
            admin.deleteRecords(Map.of(where, RecordsToDelete.beforeOffset(2))).all().get();
            seen.put("earliest", admin.listOffsets(Map.of(where, OffsetSpec.earliest())).all().get().get(where).offset());
            seen.put("newest", admin.listOffsets(Map.of(where, OffsetSpec.maxTimestamp())).all().get().get(where).offset());
            seen.put("beyond", failure(admin.deleteRecords(Map.of(where, RecordsToDelete.beforeOffset(100))).all()));
            admin.alterConsumerGroupOffsets("java-admin-group", Map.of(where, new OffsetAndMetadata(3))).all().get();
            seen.put("offset", admin.listConsumerGroupOffsets("java-admin-group")
                .partitionsToOffsetAndMetadata().get().get(where).offset());
            seen.put("groups", admin.listGroups().all().get().stream()
                .anyMatch(each -> each.groupId().equals("java-admin-group")));
            seen.put("state", admin.describeConsumerGroups(List.of("java-admin-group")).all().get()
                .get("java-admin-group").groupState().toString());
            admin.deleteConsumerGroups(List.of("java-admin-group")).all().get();
            seen.put("noGroup", failure(admin.deleteConsumerGroups(List.of("java-admin-group")).all()));
            seen.put("producers", admin.describeProducers(List.of(where)).all().get().get(where)
                .activeProducers().size());
            seen.put("nodes", admin.describeCluster().nodes().get().size());
            admin.deleteTopics(List.of("java-admin")).all().get();
            seen.put("gone", failure(admin.deleteTopics(List.of("java-admin")).all()));
        }
    }
}
