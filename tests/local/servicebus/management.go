package servicebus

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

// A response answers a request on $cbs or $management.
type response struct {
	status      int32
	description string
	body        map[string]any
}

var statusOK = response{status: http.StatusOK, description: "OK", body: map[string]any{}}

// request answers a message on $cbs or $management over the link of the same
// session that its reply-to names.
func (l *link) request(m *amqp.Message) error {
	if m.Properties == nil || m.Properties.MessageID == nil || m.Properties.ReplyTo == nil {
		return fmt.Errorf("%w: request without message-id and reply-to", errMalformed)
	}
	var back *link
	for _, x := range l.s.links {
		if x.toClient && x.address == l.address && x.reply == *m.Properties.ReplyTo {
			back = x
		}
	}
	if back == nil {
		return fmt.Errorf("%w: no link answers to %q", errMalformed, *m.Properties.ReplyTo)
	}
	r := l.answer(m)
	reply := amqp.Message{
		Properties: &amqp.MessageProperties{CorrelationID: m.Properties.MessageID},
		ApplicationProperties: map[string]any{
			"status-code": r.status, "status-description": r.description,
			"statusCode": r.status, "statusDescription": r.description,
		},
		Value: r.body,
	}
	b, err := reply.MarshalBinary()
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	back.replies = append(back.replies, b)
	back.flushReplies()
	return nil
}

func (l *link) flushReplies() {
	for len(l.replies) > 0 && l.ready() {
		l.transmit(l.replies[0], []byte{0}, true)
		l.replies = l.replies[1:]
	}
}

func (l *link) answer(m *amqp.Message) response {
	operation, _ := m.ApplicationProperties["operation"].(string)
	if l.address == "$cbs" {
		if operation != "put-token" {
			return response{status: http.StatusBadRequest, description: "operation " + operation}
		}
		return response{status: http.StatusAccepted, description: "Accepted", body: map[string]any{}}
	}
	q := l.s.c.n.queues[strings.TrimSuffix(l.address, "/$management")]
	body, _ := m.Value.(map[string]any)
	switch operation {
	case "com.microsoft:renew-lock":
		return q.renewLocks(body)
	case "com.microsoft:peek-message":
		return q.peek(body)
	case "com.microsoft:schedule-message":
		return q.schedule(body)
	case "com.microsoft:cancel-scheduled-message":
		return q.cancel(body)
	case "com.microsoft:receive-by-sequence-number":
		return q.receiveDeferred(body)
	case "com.microsoft:update-disposition":
		return q.updateDisposition(body)
	}
	return response{status: http.StatusNotImplemented, description: "The operation " + operation + " is not supported."}
}

var lockLostResponse = response{status: http.StatusGone, description: lockLost.description}

func (q *queue) renewLocks(body map[string]any) response {
	tokens, _ := body["lock-tokens"].([]amqp.UUID)
	expirations := make([]time.Time, 0, len(tokens))
	for _, token := range tokens {
		r := q.locks[token]
		if r == nil {
			return lockLostResponse
		}
		q.renew(r)
		expirations = append(expirations, r.until)
	}
	return response{statusOK.status, statusOK.description, map[string]any{"expirations": expirations}}
}

func (q *queue) peek(body map[string]any) response {
	from, _ := body["from-sequence-number"].(int64)
	count, _ := body["message-count"].(int32)
	start, _ := q.find(from)
	found := slices.Clone(q.active[start:min(len(q.active), start+max(int(count), 0))])
	for _, r := range q.other {
		if r.seq >= from {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *record) int { return int(a.seq - b.seq) })
	found = found[:min(len(found), max(int(count), 0))]
	if len(found) == 0 {
		return response{status: http.StatusNoContent, description: "No messages.", body: map[string]any{}}
	}
	list := make([]any, len(found))
	for i, r := range found {
		list[i] = map[string]any{"message": q.encode(r, false)}
	}
	return response{statusOK.status, statusOK.description, map[string]any{"messages": list}}
}

func (q *queue) schedule(body map[string]any) response {
	if q.dead == nil {
		return response{status: http.StatusForbidden, description: "Messages cannot be sent to a dead-letter queue."}
	}
	list, _ := body["messages"].([]any)
	messages := make([]*amqp.Message, len(list))
	for i, e := range list {
		item, _ := e.(map[string]any)
		encoded, _ := item["message"].([]byte)
		m, err := unmarshal(encoded)
		if err == nil {
			_, err = m.MarshalBinary()
		}
		if err != nil {
			return response{status: http.StatusBadRequest, description: err.Error()}
		}
		messages[i] = m
	}
	numbers := make([]int64, len(messages))
	for i, m := range messages {
		numbers[i] = q.add(m)
	}
	q.pump()
	return response{statusOK.status, statusOK.description, map[string]any{"sequence-numbers": numbers}}
}

func (q *queue) cancel(body map[string]any) response {
	numbers, _ := body["sequence-numbers"].([]int64)
	for _, n := range numbers {
		if r := q.other[n]; r == nil || r.state != stateScheduled {
			return messageNotFound(n)
		}
	}
	for _, n := range numbers {
		if r := q.other[n]; r != nil { // named twice
			q.take(r)
		}
	}
	return statusOK
}

func messageNotFound(n int64) response {
	return response{status: http.StatusNotFound, description: fmt.Sprintf("No message with sequence number %d.", n)}
}

func (q *queue) receiveDeferred(body map[string]any) response {
	numbers, _ := body["sequence-numbers"].([]int64)
	mode, _ := body["receiver-settle-mode"].(uint32)
	for _, n := range numbers {
		if r := q.other[n]; r == nil || r.state != stateDeferred {
			return messageNotFound(n)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	list := make([]any, len(numbers))
	for i, n := range numbers {
		r := q.other[n]
		q.take(r)
		if mode == 0 { // receive and delete
			list[i] = map[string]any{"message": q.encode(r, false)}
			continue
		}
		q.hold(r)
		list[i] = map[string]any{"message": q.encode(r, true), "lock-token": r.lock}
	}
	return response{statusOK.status, statusOK.description, map[string]any{"messages": list}}
}

func (q *queue) updateDisposition(body map[string]any) response {
	outcomes := map[string]outcome{
		"completed": completed, "abandoned": abandoned, "defered": deferred, "suspended": deadLettered,
	}
	status, _ := body["disposition-status"].(string)
	to, known := outcomes[status]
	if !known {
		return response{status: http.StatusBadRequest, description: "disposition-status " + status}
	}
	set := settlement{to: to}
	set.reason, _ = body["deadletter-reason"].(string)
	set.description, _ = body["deadletter-description"].(string)
	set.properties, _ = body["properties-to-modify"].(map[string]any)
	tokens, _ := body["lock-tokens"].([]amqp.UUID)
	for _, token := range tokens {
		if !q.settle(token, set) {
			return lockLostResponse
		}
	}
	return statusOK
}
