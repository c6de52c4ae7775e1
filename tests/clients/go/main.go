// What franz-go is used for, once: go run . HOST:PORT. Prints what it saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "franz"

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func code(err error) int16 {
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return 0
}

func client(options ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(append(options, kgo.SeedBrokers(os.Args[1]))...))
}

func read(ctx context.Context, count int, options ...kgo.Opt) []string {
	consumer := client(append(options, kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	defer consumer.Close()
	var values []string
	for len(values) < count {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			panic(err)
		}
		fetches.EachRecord(func(record *kgo.Record) { values = append(values, string(record.Value)) })
	}
	return values
}

// positions reads a partition of its own from its beginning, an offset, a time and its end, up to
// the record that comes last.
func positions(ctx context.Context) map[string][]string {
	const topic = "franz-places"
	producer := client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.AllowAutoTopicCreation())
	defer producer.Close()
	write := func(number int) {
		record := kgo.StringRecord(fmt.Sprint(number))
		record.Timestamp = time.UnixMilli(1_000_000 + int64(number))
		must(0, producer.ProduceSync(ctx, record).FirstErr())
	}
	for number := 0; number < 5; number++ {
		write(number)
	}
	found := map[string][]string{}
	for name, offset := range map[string]kgo.Offset{
		"beginning": kgo.NewOffset().AtStart(), "offset": kgo.NewOffset().At(2),
		"time": kgo.NewOffset().AfterMilli(1_000_003), "end": kgo.NewOffset().AtEnd().Relative(-1),
	} {
		consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: offset}}))
		for len(found[name]) == 0 || found[name][len(found[name])-1] != "4" {
			fetches := consumer.PollFetches(ctx)
			if err := fetches.Err0(); err != nil {
				panic(err)
			}
			fetches.EachRecord(func(record *kgo.Record) {
				found[name] = append(found[name], string(record.Value))
			})
		}
		consumer.Close()
	}
	return found
}

// shares has a member alone in its group, then beside another one, then alone again.
func shares(ctx context.Context) []int {
	member := func() (*kgo.Client, chan int) {
		count, counts := 0, make(chan int, 100)
		change := func(sign int) func(context.Context, *kgo.Client, map[string][]int32) {
			return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
				count += sign * len(changed[topic])
				counts <- count
			}
		}
		return client(kgo.ConsumerGroup("franz-sharing"), kgo.ConsumeTopics(topic),
			kgo.HeartbeatInterval(100*time.Millisecond), kgo.OnPartitionsAssigned(change(1)),
			kgo.OnPartitionsRevoked(change(-1)), kgo.OnPartitionsLost(change(-1))), counts
	}
	until := func(counts chan int, wanted int) int {
		for {
			select {
			case <-ctx.Done():
				panic("its share did not become what it should")
			case count := <-counts:
				if count == wanted {
					return count
				}
			}
		}
	}
	first, ofFirst := member()
	found := []int{until(ofFirst, 3)}
	second, ofSecond := member()
	ofTwo := until(ofSecond, 1)
	found = append(found, ofTwo, until(ofFirst, 3-ofTwo))
	second.Close()
	found = append(found, until(ofFirst, 3))
	first.Close()
	return found
}

// fenced opens a second producer of a transactional id; what the first one is told at its end.
func fenced(ctx context.Context) int16 {
	open := func() *kgo.Client {
		return client(kgo.TransactionalID("franz-fenced"), kgo.DefaultProduceTopic(topic))
	}
	first, second := open(), open()
	defer first.Close()
	defer second.Close()
	must(0, first.BeginTransaction())
	must(0, first.ProduceSync(ctx, kgo.StringRecord("of a zombie")).FirstErr())
	must(0, second.BeginTransaction())
	must(0, second.ProduceSync(ctx, kgo.StringRecord("of its successor")).FirstErr())
	told := code(first.EndTransaction(ctx, kgo.TryCommit))
	must(0, second.EndTransaction(ctx, kgo.TryCommit))
	return told
}

// failures are what it is told of a record too large, a topic that cannot be, and an offset that is
// not there.
func failures(ctx context.Context) []int16 {
	producer := client(kgo.ProducerBatchMaxBytes(3_000_000), kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer producer.Close()
	large := &kgo.Record{Topic: topic, Value: make([]byte, 2_000_000)}
	nowhere := &kgo.Record{Topic: "a/b", Value: []byte("x")}
	found := []int16{code(producer.ProduceSync(ctx, large).FirstErr()),
		code(producer.ProduceSync(ctx, nowhere).FirstErr())}
	consumer := client(kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1_000_000)}}))
	defer consumer.Close()
	return append(found, code(consumer.PollFetches(ctx).Errors()[0].Err))
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	seen := map[string]any{}
	plain := client()
	admin := kadm.NewClient(plain)
	created := must(admin.CreateTopics(ctx, 3, 1, nil, topic))[topic]
	seen["created"] = []any{code(created.Err), created.NumPartitions, created.ReplicationFactor}
	seen["again"] = code(must(admin.CreateTopics(ctx, 3, 1, nil, topic))[topic].Err)
	seen["copies"] = code(must(admin.CreateTopics(ctx, 3, 3, nil, "copies"))["copies"].Err)

	sent := 0
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(),
		kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for _, codec := range codecs {
		producer := client(kgo.ProducerBatchCompression(codec))
		for i := 0; i < 20; i++ {
			record := &kgo.Record{Topic: topic, Key: []byte(fmt.Sprint(sent % 7)),
				Value: []byte(fmt.Sprintf("value %d %050d", sent, 0))}
			must(0, producer.ProduceSync(ctx, record).FirstErr())
			sent++
		}
		producer.Close()
	}
	distinct := map[string]bool{}
	for _, value := range read(ctx, sent, kgo.ConsumerGroup("franz-group"),
		kgo.DisableAutoCommit()) {
		distinct[value] = true
	}
	seen["sent"], seen["read"] = sent, len(distinct)

	seen["positions"] = positions(ctx)
	seen["shares"] = shares(ctx)

	transactional := client(kgo.TransactionalID("franz-tx"), kgo.DefaultProduceTopic(topic))
	for _, value := range []string{"aborted", "committed"} {
		must(0, transactional.BeginTransaction())
		must(0, transactional.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr())
		must(0, transactional.EndTransaction(ctx, kgo.TransactionEndTry(value == "committed")))
	}
	transactional.Close()
	ended := map[string]bool{}
	for _, value := range read(ctx, sent+1) {
		ended[value] = true
	}
	seen["committed"], seen["aborted"] = ended["committed"], ended["aborted"]
	seen["fenced"] = fenced(ctx)
	seen["errors"] = failures(ctx)

	value := "600000"
	altered := must(admin.AlterTopicConfigs(ctx,
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.ms", Value: &value}}, topic))
	seen["altered"] = code(altered[0].Err)
	for _, config := range must(admin.DescribeTopicConfigs(ctx, topic))[0].Configs {
		if config.Key == "segment.ms" {
			seen["config"] = []any{*config.Value, config.Source.String()}
		}
	}
	seen["partitions"] = code(must(admin.UpdatePartitions(ctx, 4, topic))[topic].Err)
	ends := must(admin.ListEndOffsets(ctx, topic))
	emptied := must(admin.DeleteRecords(ctx, ends.Offsets()))
	seen["emptied"] = emptied[topic][0].LowWatermark == ends[topic][0].Offset
	groups := must(admin.DescribeGroups(ctx, "franz-group"))
	seen["group"] = groups["franz-group"].State
	seen["deleted"] = code(must(admin.DeleteGroups(ctx, "franz-group"))["franz-group"].Err)
	seen["gone"] = code(must(admin.DeleteTopics(ctx, topic))[topic].Err)
	seen["unknown"] = code(must(admin.DeleteTopics(ctx, topic))[topic].Err)
	plain.Close()
	must(0, json.NewEncoder(os.Stdout).Encode(seen))
}
