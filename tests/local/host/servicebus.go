package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

const (
	settleTimeout   = 10 * time.Second
	listenerBackoff = 250 * time.Millisecond
	minRenewal      = 100 * time.Millisecond
)

// serviceBus opens the namespace that a binding's connection names: a connection string, or an identity and a host name.
func (h *Host) serviceBus(connection string) (*azservicebus.Client, error) {
	if s := h.cfg.Settings[connection]; s != "" {
		return azservicebus.NewClientFromConnectionString(s, nil)
	}
	ns := h.cfg.Settings[connection+"__fullyQualifiedNamespace"]
	if ns == "" {
		return nil, fmt.Errorf("neither %s nor %s__fullyQualifiedNamespace is set", connection, connection)
	}
	if h.cfg.Credential == nil {
		return nil, fmt.Errorf("%s__fullyQualifiedNamespace needs Config.Credential", connection)
	}
	return azservicebus.NewClient(ns, h.cfg.Credential, nil)
}

// listenServiceBus delivers messages of the function's queue until ctx is done, at most maxConcurrentCalls at once, and then waits for
// those under way. A message is completed when the function succeeded and abandoned otherwise; dead-lettering is the broker's.
func (h *Host) listenServiceBus(ctx context.Context, f *function, client *azservicebus.Client) {
	var running sync.WaitGroup
	slots := make(chan struct{}, h.app.host.Extensions.ServiceBus.MaxConcurrentCalls)
	var receiver *azservicebus.Receiver
	defer func() {
		running.Wait()
		if receiver != nil {
			h.closeReceiver(receiver)
		}
	}()
	for ctx.Err() == nil {
		if receiver == nil {
			r, err := client.NewReceiverForQueue(f.trigger.QueueName, nil)
			if err != nil {
				h.listenerError(ctx, f, err)
				continue
			}
			receiver = r
		}
		n := takeSlots(ctx, slots)
		if n == 0 {
			return
		}
		messages, err := receiver.ReceiveMessages(ctx, n, nil)
		for range n - len(messages) {
			<-slots
		}
		for _, m := range messages {
			r := receiver
			running.Go(func() {
				defer func() { <-slots }()
				h.deliver(h.work, f, r, m)
			})
		}
		if err != nil && ctx.Err() == nil {
			h.listenerError(ctx, f, err)
		}
	}
}

// takeSlots waits for one free slot and takes all there are.
func takeSlots(ctx context.Context, slots chan struct{}) int {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	n := 1
	for n < cap(slots) {
		select {
		case slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
	return n
}

func (h *Host) closeReceiver(r *azservicebus.Receiver) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		h.console.infof("close receiver: %v", err)
	}
}

// listenerError notes what keeps a listener from its queue and pauses: the host retries for ever.
func (h *Host) listenerError(ctx context.Context, f *function, err error) {
	h.console.infof("listener of %s: %v", f.name, err)
	pause := time.NewTimer(listenerBackoff)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

func (h *Host) deliver(ctx context.Context, f *function, r *azservicebus.Receiver, m *azservicebus.ReceivedMessage) {
	renewing, stop := context.WithCancel(ctx)
	var renewal sync.WaitGroup
	renewal.Go(func() { h.renew(renewing, f, r, m) })
	_, err := h.invoke(ctx, f, text(f, m.Body), busMetadata(m))
	stop()
	renewal.Wait()
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if h.work.Err() != nil {
		return // the real host is gone in the middle: the lock expires
	}
	if err == nil {
		err = r.CompleteMessage(settle, m, nil)
	} else {
		err = r.AbandonMessage(settle, m, nil)
	}
	if err != nil {
		h.console.infof("settle message of %s: %v", f.name, err)
	}
}

// renew keeps a message's lock until ctx is done, for maxAutoLockRenewalDuration at most.
func (h *Host) renew(ctx context.Context, f *function, r *azservicebus.Receiver, m *azservicebus.ReceivedMessage) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.app.host.Extensions.ServiceBus.MaxAutoLockRenewalDuration))
	defer cancel()
	for m.LockedUntil != nil {
		pause := time.NewTimer(max(time.Until(*m.LockedUntil)/2, minRenewal))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		if err := r.RenewMessageLock(ctx, m, nil); err != nil {
			var lost *azservicebus.Error
			if errors.As(err, &lost) && lost.Code == azservicebus.CodeLockLost {
				h.console.infof("lock of a message of %s lost", f.name)
				return
			}
			if ctx.Err() == nil {
				h.console.infof("renew lock of a message of %s: %v", f.name, err)
			}
		}
	}
}

// text gives a body the type its binding asks for: bytes if binary, else a string, in which .NET replaces what is not UTF-8.
func text(f *function, body []byte) any {
	if f.trigger.DataType == "binary" {
		return body
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

// busMetadata is what the host adds to a Service Bus message. The keys are those a real host sends.
func busMetadata(m *azservicebus.ReceivedMessage) []field {
	properties := make(map[string]any, len(m.ApplicationProperties))
	for name, v := range m.ApplicationProperties {
		properties[name] = v
	}
	var empty []field
	fields := []field{
		{"MessageReceiver", empty}, {"MessageSession", empty}, {"MessageActions", empty}, {"SessionActions", empty},
		{"ReceiveActions", empty}, {"Client", []field{{"TransportType", int64(0)}, {"IsClosed", false}}},
		{"DeliveryCount", m.DeliveryCount},
		{"LockToken", fmt.Sprintf("%x-%x-%x-%x-%x", m.LockToken[:4], m.LockToken[4:6], m.LockToken[6:8], m.LockToken[8:10], m.LockToken[10:])},
		{"MessageId", m.MessageID},
		{"ApplicationProperties", properties}, {"UserProperties", properties},
	}
	if m.SequenceNumber != nil {
		fields = append(fields, field{"SequenceNumber", *m.SequenceNumber})
	}
	for _, t := range []struct {
		name string
		at   *time.Time
	}{{"EnqueuedTime", m.EnqueuedTime}, {"ExpiresAt", m.ExpiresAt}} {
		if t.at != nil {
			fields = append(fields, field{t.name, dateTimeOffset(t.at.UTC())}, field{t.name + "Utc", dateTime(*t.at)})
		}
	}
	for _, s := range []struct {
		name string
		text *string
	}{
		{"ContentType", m.ContentType}, {"CorrelationId", m.CorrelationID}, {"Subject", m.Subject}, {"Label", m.Subject},
		{"To", m.To}, {"ReplyTo", m.ReplyTo}, {"DeadLetterSource", m.DeadLetterSource},
	} {
		if s.text != nil {
			fields = append(fields, field{s.name, *s.text})
		}
	}
	return slices.Clip(fields)
}
