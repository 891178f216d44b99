package host

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/queueerror"
)

const (
	minPolling   = 100 * time.Millisecond
	poisonSuffix = "-poison"
)

// storageQueues opens the queue service that a binding's connection names.
func (h *Host) storageQueues(connection string) (*azqueue.ServiceClient, error) {
	if connection == "" {
		connection = "AzureWebJobsStorage"
	}
	opts := &azqueue.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: h.cfg.Transport}}
	if s := h.cfg.Settings[connection]; s != "" {
		return azqueue.NewServiceClientFromConnectionString(s, opts)
	}
	u := h.cfg.Settings[connection+"__queueServiceUri"]
	if a := h.cfg.Settings[connection+"__accountName"]; u == "" && a != "" {
		u = "https://" + a + ".queue.core.windows.net"
	}
	switch {
	case u == "":
		return nil, fmt.Errorf("neither %s nor %s__queueServiceUri nor %s__accountName is set", connection, connection, connection)
	case h.cfg.Credential == nil:
		return nil, fmt.Errorf("%s__queueServiceUri needs Config.Credential", connection)
	}
	return azqueue.NewServiceClient(u, h.cfg.Credential, opts)
}

// queueListener delivers the messages of one Storage queue.
type queueListener struct {
	h       *Host
	f       *function
	service *azqueue.ServiceClient
	queue   *azqueue.QueueClient
}

// listenQueue polls until ctx is done and then waits for the messages under way. A message is deleted when the function succeeded,
// shows again after visibilityTimeout when it failed, and goes to <queue>-poison after maxDequeueCount deliveries.
func (h *Host) listenQueue(ctx context.Context, f *function, service *azqueue.ServiceClient) {
	q := &queueListener{h, f, service, service.NewQueueClient(f.trigger.QueueName)}
	opt := h.app.host.Extensions.Queues
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, opt.BatchSize+opt.NewBatchThreshold)
	wait := minPolling
	for ctx.Err() == nil {
		n := takeSlots(ctx, slots)
		if n == 0 {
			return
		}
		got, err := q.fetch(ctx, min(n, opt.BatchSize))
		for range n - len(got) {
			<-slots
		}
		for _, m := range got {
			running.Go(func() {
				defer func() { <-slots }()
				q.deliver(h.work, m)
			})
		}
		if err != nil && ctx.Err() == nil {
			h.listenerError(ctx, f, err)
		}
		if len(got) > 0 {
			wait = minPolling
			continue
		}
		pause := time.NewTimer(wait)
		wait = min(2*wait, max(time.Duration(opt.MaxPollingInterval), minPolling))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

func (q *queueListener) fetch(ctx context.Context, n int) ([]*azqueue.DequeuedMessage, error) {
	// Hidden for as long as the function may run and a little more, where the real host renews.
	hidden := int32((time.Duration(q.h.app.host.FunctionTimeout) + time.Minute).Seconds())
	count := int32(n)
	resp, err := q.queue.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{NumberOfMessages: &count, VisibilityTimeout: &hidden})
	if queueerror.HasCode(err, queueerror.QueueNotFound) {
		return nil, nil // the host waits for the queue to appear
	}
	return resp.Messages, err
}

func (q *queueListener) deliver(ctx context.Context, m *azqueue.DequeuedMessage) {
	body, err := q.decode(*m.MessageText)
	if err == nil {
		_, err = q.h.invoke(ctx, q.f, text(q.f, body), queueMetadata(m))
	} else {
		q.h.console.errorf("function %s is not called: %v", q.f.name, err)
	}
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if q.h.work.Err() != nil {
		return
	}
	if err := q.settle(settle, m, err == nil); err != nil {
		q.h.console.infof("settle message of %s: %v", q.f.name, err)
	}
}

func (q *queueListener) decode(s string) ([]byte, error) {
	if q.h.app.host.Extensions.Queues.MessageEncoding == "none" {
		return []byte(s), nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("the message is not base64, which host.json's messageEncoding asks for: %w", err)
	}
	return b, nil
}

func (q *queueListener) settle(ctx context.Context, m *azqueue.DequeuedMessage, ok bool) error {
	opt := q.h.app.host.Extensions.Queues
	if !ok && *m.DequeueCount < int64(opt.MaxDequeueCount) {
		hidden := int32(time.Duration(opt.VisibilityTimeout).Seconds())
		_, err := q.queue.UpdateMessage(ctx, *m.MessageID, *m.PopReceipt, *m.MessageText, &azqueue.UpdateMessageOptions{VisibilityTimeout: &hidden})
		return err
	}
	if !ok {
		poison := q.service.NewQueueClient(q.f.trigger.QueueName + poisonSuffix)
		if _, err := poison.Create(ctx, nil); err != nil && !queueerror.HasCode(err, queueerror.QueueAlreadyExists) {
			return err
		}
		if _, err := poison.EnqueueMessage(ctx, *m.MessageText, nil); err != nil {
			return err
		}
		q.h.console.infof("message of %s moved to %s%s", q.f.name, q.f.trigger.QueueName, poisonSuffix)
	}
	_, err := q.queue.DeleteMessage(ctx, *m.MessageID, *m.PopReceipt, nil)
	return err
}

func queueMetadata(m *azqueue.DequeuedMessage) []field {
	fields := []field{
		{"DequeueCount", *m.DequeueCount},
		{"Id", *m.MessageID},
		{"PopReceipt", *m.PopReceipt},
	}
	for _, t := range []struct {
		name string
		at   *time.Time
	}{{"ExpirationTime", m.ExpirationTime}, {"InsertionTime", m.InsertionTime}, {"NextVisibleTime", m.TimeNextVisible}} {
		if t.at != nil {
			fields = append(fields, field{t.name, dateTimeOffset(t.at.UTC())})
		}
	}
	return fields
}
