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
